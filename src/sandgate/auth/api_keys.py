"""API keys: ``sgk_<id>_<secret>``, of which the database holds the id and a SHA-256 of the secret.

The secret is 256 random bits, so that a plain hash cannot be turned back and a slow one would only cost time.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandgate.auth.base import IssuedApiKey
from sandgate.core.clock import Clock
from sandgate.core.errors import InvalidRequest, NotAuthenticated
from sandgate.core.ids import ApiKeyId, UserId, make_api_key_id
from sandgate.core.principal import ApiKey

PREFIX = "sgk_"
LONGEST_LIFETIME_S = 10 * 365 * 86_400
MOST_KEYS_OF_A_USER = 100

_SECRET_BYTES = 32
_ID_PREFIX = "key-"
_FORM = re.compile(rf"{PREFIX}([0-9a-z]{{26}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")
#: ``last_used_at`` is written this often at most.
_NOTE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """An API key as a caller presents it."""

    api_key_id: ApiKeyId
    secret: str = field(repr=False)


def make_api_key(user_id: UserId, label: str, expires_in_s: int | None, now: datetime) -> IssuedApiKey:
    """A new key and the only showing of its secret. Raises ``InvalidRequest`` for a lifetime out of range."""
    if expires_in_s is not None and not 1 <= expires_in_s <= LONGEST_LIFETIME_S:
        raise InvalidRequest.for_fields([("expires_in", f"must be 1 to {LONGEST_LIFETIME_S} seconds")])
    api_key_id = make_api_key_id()
    secret = secrets.token_hex(_SECRET_BYTES)
    key = ApiKey(
        api_key_id=api_key_id,
        user_id=user_id,
        label=label,
        secret_sha256=_hash(secret),
        created_at=now,
        expires_at=None if expires_in_s is None else now + timedelta(seconds=expires_in_s),
        last_used_at=None,
    )
    return IssuedApiKey(key, f"{PREFIX}{api_key_id.removeprefix(_ID_PREFIX)}_{secret}")


def parse_api_key(credential: str) -> PresentedKey:
    """The parts of a credential. Raises ``NotAuthenticated`` when it does not have the form of a key."""
    match = _FORM.fullmatch(credential)
    if match is None:
        raise not_valid()
    return PresentedKey(ApiKeyId(_ID_PREFIX + match[1]), match[2])


def check_api_key(key: ApiKey, presented: PresentedKey, now: datetime) -> None:
    """Raises ``NotAuthenticated`` unless the secret is the key's and the key has not expired."""
    if not hmac.compare_digest(key.secret_sha256, _hash(presented.secret)):
        raise not_valid()
    if key.expires_at is not None and key.expires_at <= now:
        raise NotAuthenticated("The API key has expired; make a new one")


def not_valid() -> NotAuthenticated:
    """One answer for every key that is none: it does not tell an unknown id from a wrong secret."""
    return NotAuthenticated("The API key is not valid")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class KeyUses:
    """Remembers which keys were used until somebody writes it down, so that no request waits for that."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted_at: dict[ApiKeyId, float] = {}
        self._unwritten: dict[ApiKeyId, datetime] = {}

    def note(self, key: ApiKey) -> None:
        """The key was used now; a use within a minute of the last one that was noted is left out."""
        now = self._clock.monotonic()
        if now - self._noted_at.get(key.api_key_id, -_NOTE_EVERY_S) < _NOTE_EVERY_S:
            return
        self._noted_at[key.api_key_id] = now
        self._unwritten[key.api_key_id] = self._clock.now()

    def drain(self) -> dict[ApiKeyId, datetime]:
        """What is to be written, handed out once."""
        forget_before = self._clock.monotonic() - _NOTE_EVERY_S
        self._noted_at = {key_id: at for key_id, at in self._noted_at.items() if at > forget_before}
        unwritten, self._unwritten = self._unwritten, {}
        return unwritten

    def forget(self, api_key_id: ApiKeyId) -> None:
        """The key is no more."""
        self._noted_at.pop(api_key_id, None)
        self._unwritten.pop(api_key_id, None)
