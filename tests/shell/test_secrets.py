"""What the environment may not say: secrets that everybody knows, where others could use them."""

import signal

import pytest

from syncflow_core.errors import ConfigError
from syncflow_core.settings import read_settings
from syncflow_dagster.cli.sandbox import run


@pytest.mark.parametrize("system", ["apismith", "schedulehub"])
def test_the_sandboxes_password_is_taken_for_this_machine_alone(system: str) -> None:
    def given(url: str, password: str) -> None:
        read_settings(**{f"{system}_url": url, f"{system}_password": password})

    for url in ("http://127.0.0.1:8007", "http://localhost:8007", "http://[::1]:8007"):
        given(url, "sandbox")
    for url in ("https://erp.example.com", "http://sandbox:8007", "http://10.0.0.1"):
        given(url, "of-its-own")
        with pytest.raises(ConfigError, match=f"SYNCFLOW_{system.upper()}_PASSWORD: .*everybody"):
            given(url, "sandbox")


def test_a_sandbox_that_others_reach_needs_a_password_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("SYNCFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("SYNCFLOW_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ConfigError, match="SYNCFLOW_SANDBOX_PASSWORD"):
            run(
                host="0.0.0.0",  # noqa: S104  # that is what it must refuse
                rows=1000,
                seed=1,
                apismith_port=0,
                schedulehub_port=0,
                entities=False,
            )
    finally:
        signal.signal(signal.SIGTERM, before)
