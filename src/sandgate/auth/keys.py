"""Signing keys: one file each in a folder of mode 0700, the newest one signs, all of them verify.

A key's file is written once and never changed, so that the names in the folder say everything that can have changed:
``sandgate keys rotate`` works beside a running server, which looks at the names at most once a second, and at once
when it meets a key that it does not know.
"""

import base64
import binascii
import itertools
import json
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sandgate.auth.private_files import (
    create_private_file,
    delete_private_file,
    make_private_folder,
    read_private_file,
)
from sandgate.core.clock import Clock
from sandgate.core.errors import ConfigurationError
from sandgate.core.ids import make_id
from sandgate.telemetry.log import get_logger

#: The longest that any token can be valid: the upper bound of the setting ``token_lifetime_s``.
LONGEST_TOKEN_S = 7 * 86_400

_SECRET_BYTES = 32
_LOOK_EVERY_S = 1.0
_SUFFIX = ".json"
#: What the names of keys begin with: those that sign tokens, and those that secrets of workflows are sealed with.
SIGNING, SEALING = "key", "sealing"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of at least 256 bits. Of several keys the one of the highest generation signs."""

    kid: str
    generation: int
    created_at: datetime
    secret: bytes = field(repr=False)

    @property
    def rank(self) -> tuple[int, str]:
        """What keys are ordered by; the name decides between two processes that rotated at the same time."""
        return self.generation, self.kid


class KeyRing:
    """The keys of one kind in one folder. Call ``open`` first."""

    def __init__(self, folder: Path, clock: Clock, kind: str = SIGNING) -> None:
        self._folder = folder
        self._clock = clock
        self._kind = kind
        self._kid = re.compile(rf"{kind}-[0-9a-z]{{26}}")
        self._names: frozenset[str] = frozenset()
        self._keys: dict[str, SigningKey] = {}
        self._active: SigningKey | None = None
        self._looked_at = 0.0

    def open(self) -> None:
        """Read the folder; make it, and a first key, where there is none.

        Raises ``ConfigurationError`` when it cannot be read or written, when others may read it, or when a file in
        it is no key.
        """
        make_private_folder(self._folder)
        self._read(self._list())
        if not self._keys:
            self._add(generation=1)

    def active(self) -> SigningKey:
        """The key that signs new tokens."""
        if self._clock.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._look()
        if self._active is None:
            raise ConfigurationError(f"There is no signing key in {self._folder}; run: sandgate keys rotate")
        return self._active

    def find(self, kid: str) -> SigningKey | None:
        """The key of this name, for verifying."""
        if self._clock.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._look()
        key = self._keys.get(kid)
        if key is None and self._kid.fullmatch(kid):
            # Another process may have rotated within this second and signed with the new key.
            self._look()
            key = self._keys.get(kid)
        return key

    def rotate(self, *, drop_old: bool = False) -> SigningKey:
        """Add a new active key. Earlier keys go on verifying until no token of theirs can be valid any more.

        ``drop_old`` removes them at once, which ends every token: for when a key has become known.
        Raises ``ConfigurationError``.
        """
        make_private_folder(self._folder)
        self._read(self._list())
        newest = max((key.generation for key in self._keys.values()), default=0)
        added = self._add(generation=newest + 1)
        outlived = [key for key in self._keys.values() if key is not added] if drop_old else self._outlived()
        for key in outlived:
            delete_private_file(self._path(key.kid))
        self._read(self._list())
        return added

    def _add(self, generation: int) -> SigningKey:
        """Write a new key and read the folder again."""
        key = SigningKey(make_id(self._kind), generation, self._clock.now(), secrets.token_bytes(_SECRET_BYTES))
        create_private_file(self._path(key.kid), _render(key))
        self._read(self._list())
        return self._keys[key.kid]

    def _outlived(self) -> list[SigningKey]:
        """Keys whose successor signs for longer than any token lives; what was sealed is never outlived."""
        if self._kind != SIGNING:
            return []
        ordered = sorted(self._keys.values(), key=lambda key: key.rank)
        before = self._clock.now() - timedelta(seconds=LONGEST_TOKEN_S)
        return [key for key, successor in itertools.pairwise(ordered) if successor.created_at < before]

    def _look(self) -> None:
        """Read the folder again if its names have changed; keep what is known when that fails."""
        self._looked_at = self._clock.monotonic()
        try:
            names = self._list()
            if names != self._names:
                self._read(names)
        except ConfigurationError as error:
            _log.error("signing keys could not be read again", folder=str(self._folder), reason=error.message)

    def _list(self) -> frozenset[str]:
        """The names of the key files."""
        try:
            return frozenset(name for name in os.listdir(self._folder) if self._is_key_name(name))
        except OSError as error:
            raise ConfigurationError(f"Could not list {self._folder}: {error.strerror}") from error

    def _read(self, names: frozenset[str]) -> None:
        """Take over the keys of these files."""
        keys = {}
        for name in sorted(names):
            data = read_private_file(self._folder / name)
            if data is not None:  # It may have been dropped since it was listed.
                keys[name.removesuffix(_SUFFIX)] = _parse(self._folder / name, data)
        self._names, self._keys = names, keys
        self._active = max(keys.values(), key=lambda key: key.rank, default=None)
        self._looked_at = self._clock.monotonic()

    def _is_key_name(self, name: str) -> bool:
        """Whether a file of this name holds a key of this kind; temporary files do not."""
        return name.endswith(_SUFFIX) and self._kid.fullmatch(name.removesuffix(_SUFFIX)) is not None

    def _path(self, kid: str) -> Path:
        """Where the key of this name is kept."""
        return self._folder / f"{kid}{_SUFFIX}"


def _render(key: SigningKey) -> bytes:
    """The file of a key."""
    fields = {
        "kid": key.kid,
        "generation": key.generation,
        "created_at": key.created_at.isoformat(),
        "secret": base64.urlsafe_b64encode(key.secret).decode(),
    }
    return json.dumps(fields, indent=1).encode() + b"\n"


def _parse(path: Path, data: bytes) -> SigningKey:
    """The key of a file. Raises ``ConfigurationError`` that does not show the content."""
    try:
        fields = json.loads(data)
        key = SigningKey(
            kid=str(fields["kid"]),
            generation=int(fields["generation"]),
            created_at=datetime.fromisoformat(fields["created_at"]).astimezone(UTC),
            secret=base64.b64decode(fields["secret"], altchars=b"-_", validate=True),
        )
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise ConfigurationError(f"{path} is not a signing key; move it away", {"path": str(path)}) from None
    if key.kid != path.name.removesuffix(_SUFFIX) or len(key.secret) < _SECRET_BYTES:
        raise ConfigurationError(f"{path} is not a signing key of 256 bits; move it away", {"path": str(path)})
    return key
