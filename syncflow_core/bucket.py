"""Staged frames in object storage: S3 and what speaks like it, Google's, Azure's.

Belongs here: objects by name, and what the storage's refusals mean. This module alone knows ``obstore``.
Does not belong here: folders (``places``).

An object is written whole: a put is seen when it is complete, or never. Who asks, where and with which
credentials is in the environment, as the library takes it (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...).

Source: product.md 14, "Scale-out"; decision 0017.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import obstore
import polars as pl
from obstore.exceptions import BaseError
from obstore.store import from_url

from syncflow_core.errors import ConfigError, SyncFlowError, UnavailableError

SCHEMES: Final = {"s3", "gs", "az"}
RETRIES: Final = 1_000
"""More than there is time for: the time alone is what ends the attempts."""
LATER: Final = {408, 409, 425, 429}
"""Of the 4xx, those that say: try again."""
STATUS: Final = re.compile(r"status code: (\d{3})")
CODE: Final = re.compile(r"<Code>(\w+)</Code>")
CAUSE: Final = re.compile(r'message: "([^"]+)"')
NO_CREDENTIALS: Final = re.compile(
    r"/latest/(api/token|meta-data)|computeMetadata|/metadata/identity"
)
"""Asked for are those of the machine: where the environment has none."""


class Bucket:
    """A bucket, or what lies in it under a prefix.

    Args:
        uri: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.
        patience_s: How long it is asked again when it does not answer.

    Raises:
        ConfigError: The URI is not one of those, or the environment does not say enough.
    """

    def __init__(self, uri: str, patience_s: float) -> None:
        parts = urlsplit(uri)
        self._uri = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise ConfigError(
                f"SYNCFLOW_FRAMES_URI {self._uri}: staged frames lie in a folder, or at s3://, gs:// or az://"
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                f"SYNCFLOW_FRAMES_URI {self._uri}: it holds more than a bucket and a prefix; credentials "
                "belong into variables of their own, such as AWS_ACCESS_KEY_ID"
            )
        try:
            self._store = from_url(
                self._uri,
                client_options={
                    "connect_timeout": "5s",
                    "read_timeout": "30s",  # silence in the middle of an answer
                    "timeout": "300s",  # a part of 500,000 wide rows over a slow line
                    "allow_http": True,  # asked is only an endpoint that somebody wrote so
                },
                retry_config={
                    "max_retries": RETRIES,
                    "retry_timeout": timedelta(seconds=patience_s),
                    "backoff": {"max_backoff": timedelta(seconds=5)},
                },
            )
        except (BaseError, ValueError) as error:
            raise ConfigError(f"SYNCFLOW_FRAMES_URI {self._uri}: {_line(error)}") from error

    def __str__(self) -> str:
        return self._uri

    def write(self, name: str, frame: pl.DataFrame) -> None:  # noqa: D102  # Place's
        content = io.BytesIO()
        frame.write_ipc(content, compression="lz4")  # zstd halves the bytes and doubles the time
        self._put(name, content.getbuffer())

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:  # noqa: D102  # Place's
        return pl.read_ipc(self.get(name), columns=columns)

    def put(self, name: str, content: bytes) -> None:  # noqa: D102  # Place's
        self._put(name, content)

    def _put(self, name: str, content: bytes | memoryview) -> None:
        with self._asking("write"):
            obstore.put(self._store, name, content)

    def get(self, name: str) -> bytes:  # noqa: D102  # Place's
        try:
            return obstore.get(self._store, name).bytes().to_bytes()
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._meaning("read", error) from error
            raise FileNotFoundError(f"{self._uri}/{name} is not there") from error
        except BaseError as error:
            raise self._meaning("read", error) from error

    def forget(self, name: str) -> None:  # noqa: D102  # Place's
        names = [path for path, _ in self._objects(name)]
        # the storage may have lost them to another process meanwhile; the bucket itself was just seen
        with self._asking("remove"), suppress(FileNotFoundError):
            if names:
                obstore.delete(self._store, names)

    def touched(self, under: str = "") -> dict[str, float]:  # noqa: D102  # Place's
        before = f"{under}/" if under else ""
        found: dict[str, float] = {}
        for path, at in self._objects(under):
            level, slash, _ = path.removeprefix(before).partition("/")
            if slash:
                found[before + level] = max(at, found.get(before + level, at))
        return found

    def _objects(self, under: str) -> Iterator[tuple[str, float]]:
        with self._asking("list"):
            for some in obstore.list(self._store, prefix=under or None, chunk_size=1_000):
                for item in some:
                    yield item["path"], item["last_modified"].timestamp()

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._meaning(doing, error) from error

    def _meaning(self, doing: str, error: Exception) -> SyncFlowError:
        line, found = _line(error), STATUS.search(str(error))
        status = int(found[1]) if found else 500
        what = f"SYNCFLOW_FRAMES_URI {self._uri}: cannot {doing} there"
        if NO_CREDENTIALS.search(str(error)):
            return ConfigError(
                f"{what}: no credentials in the environment, nor does this machine give any"
            )
        if status >= 500 or status in LATER:  # noqa: PLR2004  # HTTP's own
            return UnavailableError(f"{what} now: {line}", system="frames")
        if status == 404:  # noqa: PLR2004  # HTTP's own
            return ConfigError(f"{what}: there is no such bucket")
        return ConfigError(f"{what}: refused ({line})")


def _line(error: Exception) -> str:
    """What the library says, in a few words: without addresses, answers' bodies and its own entrails."""
    told, _, entrails = str(error).partition("\n\nDebug source")
    status, code, cause = STATUS.search(told), CODE.search(told), CAUSE.search(entrails)
    if status is not None:
        return f"{status[1]} {code[1]}" if code else status[1]
    if cause is not None:
        return cause[1]
    return re.sub(r"\S+://\S+", "...", told.partition("\n")[0].rpartition(" - ")[2])[:200]
