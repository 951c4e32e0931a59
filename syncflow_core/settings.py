"""Where SyncFlow's own things and its two neighbours are: the environment, read once.

Belongs here: every ``SYNCFLOW_`` variable, its default and its check.
Does not belong here: what an entity declares (``entity``).

Source: design.md, "Fixed interfaces", Environment.
"""

import difflib
import functools
import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from syncflow_core.errors import ConfigError
from syncflow_core.loopback import is_loopback
from syncflow_core.zones import zone_name


def _base_url(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    url = value.strip().rstrip("/").removesuffix("/api/v1")
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url


def _lower(value: object) -> object:
    return value.strip().lower() or "auto" if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.strip().upper() or None if isinstance(value, str) else value


def _database_url(value: SecretStr | None) -> SecretStr | None:
    if value is None or not value.get_secret_value().strip():
        return None
    scheme, separator, rest = value.get_secret_value().strip().partition("://")
    if not separator or scheme not in {
        "postgres",
        "postgresql",
        "postgresql+psycopg",
        "postgresql+psycopg2",
    }:
        raise ValueError("must be a PostgreSQL URL: postgresql://user:password@host:5432/database")
    try:
        _ = urlsplit(f"postgresql://{rest}").port
    except ValueError:
        raise ValueError("its port is no number up to 65535") from None
    return SecretStr(f"postgresql://{rest}")


def _alert_url(value: SecretStr | None) -> SecretStr | None:
    """Never the value in the words: chat programs' webhooks are as secret as a password."""
    if value is None or not (text := value.get_secret_value().strip()):
        return None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    return SecretStr(text)


def _smtp_url(value: SecretStr | None) -> SecretStr | None:
    if value is None or not (text := value.get_secret_value().strip()):
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"smtp", "smtps"} and bool(parts.hostname) and parts.port != 0
        usable &= unquote(text).isascii() and unquote(text).isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be smtp://user:password@host:587 or smtps://user:password@host:465")
    return SecretStr(text)


def _one_line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError("must be one line of printable text")
    return value.strip()


def _sender(value: str) -> str:
    if "," in value:
        raise ValueError("must be one address")
    return _mail(value)


def _mail(value: str) -> str:
    addresses = [item.strip() for item in value.split(",") if item.strip()]
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise ValueError("must be addresses such as ops@example.com, separated by commas")
    return ",".join(addresses)


_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
Mail = Annotated[str, AfterValidator(_mail)]


def _key_url(value: str | None) -> str | None:
    """Over plain HTTP anybody on the way could put keys of his own there."""
    if value is None or not value.strip():
        return None
    parts = urlsplit(value.strip())
    if parts.scheme != "https" and not (is_loopback(parts.hostname) and parts.scheme == "http"):
        raise ValueError("must begin with https://")
    return value.strip()


def _no_sandbox_password(value: SecretStr, info: ValidationInfo) -> SecretStr:
    """Everybody knows the sandbox's: it opens servers of made-up data on this machine, nothing else."""
    url = info.data.get(str(info.field_name).replace("_password", "_url"))
    known = value.get_secret_value() == SANDBOX_PASSWORD
    if known and url is not None and not is_loopback(urlsplit(url).hostname):
        raise ValueError("is the sandbox's, which everybody knows; its URL is not on this machine")
    return value


SANDBOX_PASSWORD: Final = "sandbox"  # noqa: S105  # refused where it would be a secret
"""Of the sandbox's servers, where they listen on loopback alone."""
Password = Annotated[SecretStr, AfterValidator(_no_sandbox_password)]
LOCAL_API: Final = "http://127.0.0.1:8008"
BaseUrl = Annotated[str | None, AfterValidator(_base_url)]


ENV_FILE: Final = Path(".env")
"""In the current folder; read with the environment."""
ALIKE: Final = 0.85
"""Two names that are so much alike, of 1, differ by a slip."""


class Settings(BaseSettings):
    """The environment. Values are read when this is made, not later; a ``.env`` file is read too."""

    model_config = SettingsConfigDict(
        env_prefix="SYNCFLOW_",
        env_file=ENV_FILE,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,  # the reference of the documentation is made of them
    )

    home: Path = Path(".syncflow")
    """The folder of the embedded database, of staged frames and of Dagster's history."""
    database_url: Annotated[SecretStr | None, AfterValidator(_database_url)] = None
    """The PostgreSQL that holds the bridge database and Dagster's history; unset, an embedded one in
    the home."""
    apismith_url: BaseUrl = None
    """Where APISmith is, with or without ``/api/v1``."""
    apismith_username: str = ""
    """Whom SyncFlow signs in to APISmith as."""
    apismith_password: Password = SecretStr("")
    """The password for it."""
    apismith_pagination: Literal["offset", "page"] = "offset"
    """``page`` for installations of APISmith that count pages instead of rows."""
    apismith_pages: Literal["json", "ndjson", "arrow"] = "json"
    """The form of pages that APISmith is asked for; one that does not know it answers JSON."""
    schedulehub_url: BaseUrl = None
    """Where ScheduleHub is, with or without ``/api/v1``."""
    schedulehub_username: str = ""
    """Whom SyncFlow signs in to ScheduleHub as."""
    schedulehub_password: Password = SecretStr("")
    """The password for it."""
    connections: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests at once to each of the two systems, from all runs on one bridge database together."""
    outage_s: Annotated[float, Field(ge=0)] = 120.0
    """How long a run waits for a system that has stopped answering."""
    silence_s: Annotated[float, Field(gt=0)] = 30.0
    """How long one of the two systems may say nothing in the middle of an answer."""
    answer_s: Annotated[float, Field(gt=0)] = 120.0
    """How long a whole answer may take, however steadily it drips."""
    keep_days: Annotated[int, Field(ge=1)] = 90
    """How long the history of batches and records is kept."""
    alert_webhook_url: Annotated[SecretStr | None, AfterValidator(_alert_url)] = None
    """Who is told by HTTP what has become wrong, and what is over."""
    alert_webhook_secret: SecretStr = SecretStr("")
    """Signs what is told by HTTP, where it is set."""
    alert_mail_to: Mail = ""
    """Who is told by mail; several addresses are separated by commas."""
    alert_mail_from: Annotated[str, AfterValidator(_sender)] = ""
    """Whom mails are from; one address."""
    smtp_url: Annotated[SecretStr | None, AfterValidator(_smtp_url)] = None
    """The mail server: ``smtp://user:password@host:587`` or ``smtps://user:password@host:465``."""
    installation: Annotated[str, Field(max_length=63), AfterValidator(_one_line)] = "syncflow"
    """What alerts call this SyncFlow, where there are several."""
    frames_uri: str | None = None
    """Where staged frames lie: a folder, or a bucket (``s3://bucket/prefix``, ``gs://bucket/prefix``,
    ``az://container/prefix``; needs the extra ``objects``, and credentials in the variables of its vendor);
    unset, in the home."""
    sandbox_password: SecretStr = SecretStr(SANDBOX_PASSWORD)
    """Of ``syncflow sandbox``; one of your own where others reach it."""
    api_secret: SecretStr | None = None
    """Signs the REST API's tokens, 32 bytes or more; unset, a secret of the home's own, and the API
    listens on loopback alone."""
    api_jwks_url: Annotated[str | None, AfterValidator(_key_url)] = None
    """Where the public keys of an issuer of yours are, whose tokens the REST API takes too."""
    api_issuer: str = ""
    """What such tokens have to name as their issuer."""
    api_audience: Annotated[str, Field(min_length=1)] = "syncflow"
    """What every token has to name as its audience."""
    api_role_claim: Annotated[str, Field(min_length=1)] = "role"
    """Which claim of a token says the role: viewer, operator or admin."""
    api_writes_per_minute: Annotated[int, Field(ge=1)] = 120
    """Requests that change or start something, of one caller, in a minute."""
    api_refusals_per_minute: Annotated[int, Field(ge=1)] = 30
    """Tokens of one address that may be wrong in a minute, before it is not listened to."""
    api_url: Annotated[str, AfterValidator(lambda value: _base_url(value) or LOCAL_API)] = LOCAL_API
    """Where people and programs reach the REST API, for links."""
    pii_secret: SecretStr | None = None
    """Keys the digests that stand for personal data; the home's own where unset."""
    log_format: Annotated[Literal["auto", "json", "text"], BeforeValidator(_lower)] = "auto"
    """auto: text, but JSON where a server or a worker writes to no terminal."""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None, BeforeValidator(_upper)
    ] = None
    """The least that is logged; unset: INFO in servers and workers, WARNING in commands."""
    time_zone: Annotated[str, AfterValidator(zone_name)] = "UTC"
    """The zone of what the clock starts, where an entity names none."""
    slices: Annotated[int, Field(ge=1, le=366)] = 7
    """How many slices make a sweep, for all entities."""

    @property
    def home_path(self) -> Path:
        """The home, absolute; it need not exist yet."""
        return self.home.expanduser().absolute()

    @property
    def frames_path(self) -> str:
        """Where staged frames lie: a local folder, or an object store's URI."""
        return self.frames_uri or str(self.home_path / "frames")


def misspelled() -> dict[str, str]:
    """Variables that are almost a setting of :class:`Settings`, each with the one that is likely meant.

    What is no setting at all is somebody else's: a deployment has variables of its own.
    """
    prefix, fields = "SYNCFLOW_", Settings.model_fields
    found = {}
    for name in sorted({*os.environ, *dotenv_values(ENV_FILE)}):
        short = name.upper().removeprefix(prefix).lower()
        if name.upper().startswith(prefix) and short not in fields:
            turned = [field for field in fields if sorted(field) == sorted(short)]
            alike = difflib.get_close_matches(short, fields, n=1, cutoff=ALIKE)
            for meant in [*turned, *alike][:1]:
                found[name] = f"{prefix}{meant.upper()}"
    return found


def read_settings(**overrides: object) -> Settings:
    """Read the environment.

    Raises:
        ConfigError: A variable is malformed; the message names every such variable.
    """
    if overrides:
        return _read(**overrides)
    variables = {
        name: value for name, value in os.environ.items() if name.upper().startswith("SYNCFLOW_")
    }
    return _read_once(tuple(sorted(variables.items())), _state_of(ENV_FILE.absolute()))


@functools.lru_cache(maxsize=4)
def _read_once(
    _variables: tuple[tuple[str, str], ...], _file: tuple[Path, int, int] | None
) -> Settings:
    """What stands in the variables and the file as they are: a run asks often, and reading takes 5 ms."""
    return _read()


def _state_of(file: Path) -> tuple[Path, int, int] | None:
    """What differs when the file was written anew; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return file, found.st_mtime_ns, found.st_size


def _read(**overrides: object) -> Settings:
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # tests and the demo pass typed values
    except ValidationError as error:
        faults = "; ".join(
            f"SYNCFLOW_{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise ConfigError(f"environment: {faults}") from error
