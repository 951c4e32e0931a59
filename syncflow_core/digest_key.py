"""The key of the digests that stand for personal data: one of the installation, kept in its home.

Belongs here: making and reading it.
Does not belong here: what is digested (``privacy``).

The digest of an e-mail address without a key is as good as the address: whoever has a list of addresses
finds it. With a key he needs that too, and it is in no database and no log.

Source: docs/operations/personal-data.md.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from blake3 import blake3

from syncflow_core.private import make_file, make_folder
from syncflow_core.settings import Settings

FILE: Final = "pii-secret"
"""In the home, for its owner alone."""
BYTES: Final = 32


def digest_key(settings: Settings) -> bytes:
    """32 bytes: of SYNCFLOW_PII_SECRET where it is set, else of a secret that the home has for good."""
    if settings.pii_secret is not None and settings.pii_secret.get_secret_value():
        return _key(settings.pii_secret.get_secret_value())
    place = settings.home_path / FILE
    if not place.exists():
        _make(place)
    return _key(place.read_text(encoding="ascii"))


def _key(secret: str) -> bytes:
    return blake3(secret.encode(), derive_key_context="syncflow digests of personal data").digest()


def _make(place: Path) -> None:
    """Write it, whole or not at all: several processes may do so at once, and one is first."""
    make_folder(place.parent)
    mine = place.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    make_file(mine).write_text(secrets.token_urlsafe(BYTES), encoding="ascii")
    try:
        os.link(mine, place)
    except FileExistsError:
        pass  # another process was first
    finally:
        mine.unlink()
