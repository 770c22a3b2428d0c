"""API keys: made here, shown once, kept as salted hashes, revoked without a restart.

Keys come from a file, which is read again when it changes, and from the environment variable XL_API_KEYS (separated by
commas), which is for containers whose secrets come that way.
"""

import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from xl.errors import UserError

ENVIRONMENT_VARIABLE = "XL_API_KEYS"
RECHECK_SECONDS = 1.0
"""A change of the file takes effect after at most so long."""

_SECRET_BYTES = 32
_SALT_BYTES = 16
_log = logging.getLogger(__name__)


class StoredKey(BaseModel):
    """A key as it is kept. `salt` and `digest` are hexadecimal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    salt: str = Field(pattern=r"^([0-9a-f]{2})+$")
    digest: str = Field(pattern=r"^([0-9a-f]{2})+$")
    created: str


_FILE = TypeAdapter(list[StoredKey])


@dataclass(frozen=True)
class _Key:
    name: str
    salt: bytes
    digest: bytes


def read_keys(path: Path) -> list[StoredKey]:
    """The keys of a file; none where there is no file. Raises UserError for a file that is not one of ours."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: the keys file cannot be read: {error.strerror}") from None
    except ValidationError:
        raise UserError(f"{path}: not a keys file; keys are added with `xl keys add NAME`, never by hand") from None


def add_key(path: Path, name: str) -> str:
    """Make a key, keep its hash, and return the secret, which is not kept anywhere.

    Raises:
        UserError: the name is taken or not a plain word, or the file cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise UserError(f"key name {name!r}: letters, digits, '.', '_' and '-' only, at most 64 of them")
    secret = f"xl-{secrets.token_urlsafe(_SECRET_BYTES)}"
    with _locked(path):
        keys = read_keys(path)
        if any(key.name == name for key in keys):
            raise UserError(f"{path}: there is a key named {name!r} already; revoke it first, or choose another name")
        hashed = _hashed(name, secret)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        _write(path, [*keys, StoredKey(name=name, salt=hashed.salt.hex(), digest=hashed.digest.hex(), created=created)])
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Forget a key; a running endpoint refuses it within a second. Raises UserError where there is none of that name."""
    with _locked(path):
        keys = read_keys(path)
        if all(key.name != name for key in keys):
            raise UserError(f"{path}: no key named {name!r}; there are {', '.join(key.name for key in keys) or 'none'}")
        _write(path, [key for key in keys if key.name != name])


class Keyring:
    """The keys that are good now.

    A file that has become unreadable has no keys: what cannot be checked is refused.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        given = [secret.strip() for secret in environment.get(ENVIRONMENT_VARIABLE, "").split(",")]
        self._path = path
        self._given = [_hashed(f"environment-{number}", secret) for number, secret in enumerate(filter(None, given), 1)]
        self._stored: list[_Key] = []
        self._stamp: tuple[int, int, int] | None = None
        self._next_check = 0.0

    def __len__(self) -> int:
        self._refresh()
        return len(self._given) + len(self._stored)

    def owner(self, secret: str) -> str | None:
        """The name of the key, or None for one that is not good. Takes the same time for a wrong key as for any right one."""
        self._refresh()
        data = secret.encode("utf-8", "surrogateescape")
        found = None
        for key in (*self._given, *self._stored):
            if hmac.compare_digest(_digest(key.salt, data), key.digest):
                found = key.name
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + RECHECK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            stored = read_keys(self._path)
        except UserError as error:
            _log.error("%s; its keys are refused until it is mended", error)
            stored = []
        self._stored = [_Key(key.name, bytes.fromhex(key.salt), bytes.fromhex(key.digest)) for key in stored]


def _hashed(name: str, secret: str) -> _Key:
    salt = secrets.token_bytes(_SALT_BYTES)
    return _Key(name, salt, _digest(salt, secret.encode()))


def _digest(salt: bytes, secret: bytes) -> bytes:
    # A fast hash is right here: the secrets are 256 random bits, which no dictionary holds, and every request pays for it.
    return hmac.digest(salt, secret, "sha256")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"{path}: the keys file cannot be written: {error.strerror}") from None


def _write(path: Path, keys: list[StoredKey]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump([key.model_dump() for key in keys], file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
