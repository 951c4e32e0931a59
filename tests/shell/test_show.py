"""The table of batches: whole on a wide terminal, without what nothing was counted in on a narrow one."""

import datetime as dt
from uuid import uuid4

import pytest

from syncflow_core.bridge.batches import Batch, Counts
from syncflow_dagster.cli.show import batch_table

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)


def batch(entity: str, counts: Counts) -> Batch:
    return Batch(
        uid=uuid4(),
        entity=entity,
        entity_version=1,
        kind="incremental",
        status="completed",
        started_at=NOW,
        finished_at=NOW,
        dagster_run_id=None,
        partition=None,
        counts=counts,
        rows_per_second=None,
        watermark_before=None,
        watermark_after=None,
    )


@pytest.mark.parametrize("columns", [80, 200])
def test_no_name_and_no_number_is_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    counts = Counts(fetched=1_234_567, inserted=1_000_000, unchanged=234_567)

    batch_table([batch("order_lines", counts), batch("order_headers", Counts())])

    said = capsys.readouterr().out
    for word in ("order_lines", "order_headers", "incremental", "1,234,567", "1,000,000"):
        assert word in said
    assert ("rejected" in said) == (columns == 200)
