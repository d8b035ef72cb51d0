"""Makes tokens: those of the server, those of attackers, and those that only the holder of a key could make."""

import base64
import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime
from typing import Any

import pytest

from sandgate.auth.keys import SigningKey
from sandgate.auth.tokens import Tokens
from sandgate.core.clock import ManualClock
from sandgate.core.errors import NotAuthenticated
from sandgate.core.ids import UserId, make_id, make_user_id

USER = make_user_id()


def b64(data: bytes) -> str:
    """Base 64 as tokens are written in."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class MemoryKeys:
    """Satisfies ``Keys``."""

    def __init__(self) -> None:
        self.replace()

    def replace(self) -> None:
        """Drop the key for a new one."""
        made_at = datetime(2026, 1, 1, tzinfo=UTC)
        self._key = SigningKey(make_id("key"), 1, made_at, secrets.token_bytes(32))

    def active(self) -> SigningKey:
        """The only key."""
        return self._key

    def find(self, kid: str) -> SigningKey | None:
        """The only key, by its name."""
        return self._key if kid == self._key.kid else None


class Forge:
    """Makes tokens as an attacker would, and some that only the holder of the key can make."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.keys = MemoryKeys()
        self.tokens = Tokens(self.keys, self.clock, lifetime_s=3600, remembered=4)
        self.now = int(self.clock.now().timestamp())

    def issue(self, user_id: UserId = USER) -> str:
        """A token that is in order."""
        return self.tokens.issue(user_id, self.clock.now()).access_token

    def header(self, **changes: Any) -> dict[str, Any]:
        """A header that is in order, but for the changes."""
        return {"alg": "HS256", "typ": "at+jwt", "kid": self.keys.active().kid, **changes}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims that are in order, but for the changes."""
        return {
            "iss": "sandgate",
            "aud": "sandgate-api",
            "sub": USER,
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + 60,
            "jti": "tok-" + "0" * 26,
            **changes,
        }

    def sign(self, header: bytes, payload: bytes, secret: bytes | None = None) -> str:
        """A token of these very bytes, signed with the server's own key unless another is given."""
        signing_input = f"{b64(header)}.{b64(payload)}"
        key = self.keys.active().secret if secret is None else secret
        return f"{signing_input}.{b64(hmac.digest(key, signing_input.encode(), hashlib.sha256))}"

    def make(self, header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
        """A token of these fields, signed with the server's own key."""
        return self.sign(json.dumps(header or self.header()).encode(), json.dumps(claims or self.claims()).encode())

    def is_refused(self, token: str) -> bool:
        """Whether the token is refused, twice in the same way."""
        for _ in range(2):
            with pytest.raises(NotAuthenticated):
                self.tokens.verify(token)
        return True
