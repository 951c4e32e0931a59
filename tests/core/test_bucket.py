"""What the refusals of object storage mean, against a real S3 server and a port where none listens."""

import os
import sys

import polars as pl
import pytest
from buckets import NOBODY_S_PORT, S3

from syncflow_core.errors import ConfigError, SyncFlowError, UnavailableError
from syncflow_core.frames import FrameStore
from syncflow_core.places import Place, place_of

SECRET = "hidden-word"
FRAME = pl.DataFrame({"a": ["x"]})


@pytest.fixture(autouse=True)
def reached(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


def refusals(place: Place) -> list[SyncFlowError]:
    """What each way of asking ends with."""
    refused = []
    for ask in (
        lambda: place.write("batch/part", FRAME),
        lambda: place.put("batch/part", b""),
        lambda: place.get("batch/part"),
        lambda: place.read("batch/part"),
        place.touched,
        lambda: place.forget("batch"),
    ):
        with pytest.raises(SyncFlowError) as raised:
            ask()
        refused.append(raised.value)
    return refused


def test_what_is_sent_in_several_pieces_is_one_object(s3: S3) -> None:
    place, large = place_of(s3.bucket()), os.urandom(12_000_000)

    place.put("batch/part", large)

    assert place.get("batch/part") == large


def test_a_bucket_that_does_not_exist_is_for_a_person_to_correct() -> None:
    place = place_of("s3://nobody-made-it/x")

    found = refusals(place)

    assert {type(error) for error in found} == {ConfigError}
    assert {str(error).partition(": ")[2].partition(" ")[2] for error in found} == {
        f"{verb} there: there is no such bucket" for verb in ("write", "read", "list")
    }


def test_an_account_that_is_refused_is_for_a_person_to_correct(s3: S3) -> None:
    uri = s3.bucket()
    place = place_of(uri)

    with s3.knowing_nobody():
        found = refusals(place)

    assert {type(error) for error in found} == {ConfigError}
    for error in found:
        assert f"SYNCFLOW_FRAMES_URI {uri}: cannot " in str(error)
        assert "refused (403 InvalidAccessKeyId)" in str(error)


def test_a_bucket_that_is_away_may_be_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY_S_PORT)

    found = refusals(place_of("s3://bucket/x", patience_s=0.01))

    assert {type(error) for error in found} == {UnavailableError}
    assert {str(error).partition(" now: ")[2] for error in found} == {"Connection refused"}


def test_no_credentials_anywhere_is_for_a_person_to_correct(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", NOBODY_S_PORT)

    with pytest.raises(ConfigError, match="no credentials in the environment"):
        place_of("s3://bucket/x", patience_s=0.01).get("x")


def test_what_cannot_be_removed_now_ends_no_batch(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    store = FrameStore(s3.bucket())
    ref = store.write("batch", "raw", [FRAME])

    with s3.knowing_nobody():
        store.forget("batch")
        store.close()

    assert "left to tidy" in caplog.text
    assert store.read(ref).height == 1


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("ftp://host/x", "a folder, or at s3://, gs:// or az://"),
        ("s3://", "a folder, or at s3://, gs:// or az://"),
        (f"s3://me:{SECRET}@bucket/x", "variables of their own"),
        (f"s3://bucket/x?key={SECRET}", "variables of their own"),
        ("az://container/x", "Account must be specified"),
    ],
)
def test_a_uri_that_is_no_bucket_s_is_refused_without_its_secrets(uri: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        place_of(uri)

    assert SECRET not in str(raised.value)


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "syncflow_core.bucket", raising=False)

    with pytest.raises(ConfigError, match=r"pip install 'syncflow\[objects\]'"):
        place_of("s3://bucket/x")
