"""Where SyncFlow's own things and its two neighbours are: the environment, read once.

Belongs here: every ``SYNCFLOW_`` variable, its default and its check.
Does not belong here: what an entity declares (``entity``).

Source: design.md, "Fixed interfaces", Environment.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from syncflow_core.errors import ConfigError


def _base_url(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    url = value.strip().rstrip("/").removesuffix("/api/v1")
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is not a time zone name such as Europe/Berlin") from error
    return value


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


BaseUrl = Annotated[str | None, AfterValidator(_base_url)]


class Settings(BaseSettings):
    """The environment. Values are read when this is made, not later; a ``.env`` file is read too."""

    model_config = SettingsConfigDict(
        env_prefix="SYNCFLOW_", env_file=".env", extra="ignore", frozen=True
    )

    home: Path = Path(".syncflow")
    database_url: Annotated[SecretStr | None, AfterValidator(_database_url)] = None
    apismith_url: BaseUrl = None
    apismith_username: str = ""
    apismith_password: SecretStr = SecretStr("")
    apismith_pagination: Literal["offset", "page"] = "offset"
    schedulehub_url: BaseUrl = None
    schedulehub_username: str = ""
    schedulehub_password: SecretStr = SecretStr("")
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
    frames_uri: str | None = None
    api_secret: SecretStr | None = None
    pii_secret: SecretStr | None = None
    """Keys the digests that stand for personal data; the home's own where unset."""
    log_format: Annotated[Literal["auto", "json", "text"], BeforeValidator(_lower)] = "auto"
    """auto: text, but JSON where a server or a worker writes to no terminal."""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None, BeforeValidator(_upper)
    ] = None
    """The least that is logged; unset: INFO in servers and workers, WARNING in commands."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    slices: Annotated[int, Field(ge=1, le=366)] = 7

    @property
    def home_path(self) -> Path:
        """The home, absolute; it need not exist yet."""
        return self.home.expanduser().absolute()

    @property
    def frames_path(self) -> str:
        """Where staged frames lie: a local folder, or an object store's URI."""
        return self.frames_uri or str(self.home_path / "frames")


def read_settings(**overrides: object) -> Settings:
    """Read the environment.

    Raises:
        ConfigError: A variable is malformed; the message names every such variable.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # tests and the demo pass typed values
    except ValidationError as error:
        faults = "; ".join(
            f"SYNCFLOW_{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise ConfigError(f"environment: {faults}") from error
