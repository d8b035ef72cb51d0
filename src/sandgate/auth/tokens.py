"""Tokens: JSON Web Tokens as RFC 8725 wants them.

What an attacker chooses decides nothing: the algorithm is fixed, the header may hold three known fields and no other,
``kid`` is looked up among the keys in memory and goes nowhere else, and everything is bounded before it is parsed.
Claims are looked at only after the signature was found to be ours, and are checked all the same.
"""

import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import jwt

from sandgate.auth.base import IssuedToken
from sandgate.auth.keys import LONGEST_TOKEN_S, SigningKey
from sandgate.core.clock import Clock
from sandgate.core.errors import NotAuthenticated
from sandgate.core.ids import UserId, make_id

ALGORITHM = "HS256"
#: Source: RFC 9068, section 2.1: the type that keeps an access token from being taken for another kind.
TOKEN_TYPE = "at+jwt"  # noqa: S105
ISSUER = "sandgate"
AUDIENCE = "sandgate-api"

_LONGEST_TOKEN = 8 * 1024
_LONGEST_HEADER = 512
#: How far the clocks of two gateways may be apart.
_LEEWAY_S = 30.0
_CLAIMS = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti"})
_HEADER_FIELDS = frozenset({"alg", "typ", "kid"})
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SUBJECT = re.compile(r"user-[0-9a-z]{12,64}")
_TOKEN_ID = re.compile(r"tok-[0-9a-z]{12,64}")
_HIGHEST_DATE = 2**43  # Seconds; far beyond any date, far below what a double cannot hold.


class Keys(Protocol):
    """Where keys are looked up."""

    def active(self) -> SigningKey:
        """The key that signs."""
        ...

    def find(self, kid: str) -> SigningKey | None:
        """The key of this name."""
        ...


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a verified token says; dates are seconds since 1970, ``issued_at`` is exact to the microsecond."""

    user_id: UserId
    token_id: str
    issued_at: float
    not_before: int
    expires_at: int

    @property
    def end(self) -> datetime:
        """When the token ends by itself."""
        return datetime.fromtimestamp(self.expires_at, UTC)


class Tokens:
    """Issues and verifies tokens. Verified ones are remembered, at most ``remembered`` of them, by their SHA-256."""

    def __init__(self, keys: Keys, clock: Clock, *, lifetime_s: int, remembered: int = 4096) -> None:
        self._keys = keys
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._remembered = remembered
        self._verified: OrderedDict[bytes, tuple[str, TokenClaims]] = OrderedDict()
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])

    def issue(self, user_id: UserId, decided_at: datetime) -> IssuedToken:
        """A new token. ``decided_at`` is when the user's row was read: a later change of it ends the token."""
        key = self._keys.active()
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "iat": decided_at.timestamp(),
            "nbf": now,
            "exp": now + self._lifetime_s,
            "jti": make_id("tok"),
        }
        payload = json.dumps(claims, separators=(",", ":")).encode()
        token = self._jws.encode(payload, key.secret, ALGORITHM, headers={"typ": TOKEN_TYPE, "kid": key.kid})
        return IssuedToken(token, self._lifetime_s)

    def verify(self, token: str) -> TokenClaims:
        """The claims of a token that is ours and valid now. Raises ``NotAuthenticated``."""
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            raise _not_valid()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None and self._keys.find(known[0]) is not None:
            self._verified.move_to_end(digest)
            self._check_time(known[1])
            return known[1]
        kid, claims = self._verify_anew(token)
        self._check_time(claims)
        self._verified[digest] = (kid, claims)
        if len(self._verified) > self._remembered:
            self._verified.popitem(last=False)
        return claims

    def _verify_anew(self, token: str) -> tuple[str, TokenClaims]:
        """The name of the key that signed it, and its claims."""
        if _SHAPE.fullmatch(token) is None:
            raise _not_valid()
        kid = _parse_header(token[: token.index(".")])
        key = self._keys.find(kid)
        if key is None:
            raise _not_valid()
        try:
            payload = self._jws.decode(token, key.secret, algorithms=[ALGORITHM])
        except jwt.PyJWTError:
            raise _not_valid() from None
        return kid, _parse_claims(payload)

    def _check_time(self, claims: TokenClaims) -> None:
        """Refuse what is not valid yet or no more."""
        now = self._clock.now().timestamp()
        if now >= claims.expires_at:
            raise NotAuthenticated("The token has expired; ask for a new one")
        if now + _LEEWAY_S < claims.not_before:
            raise NotAuthenticated("The token is not valid yet; look at the clocks of client and server")


def _not_valid() -> NotAuthenticated:
    """One answer for everything that is no token of ours: an attacker learns nothing from it."""
    return NotAuthenticated("The token is not valid")


def _parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object in which no name occurs twice and every number is finite."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_refuse_doubles, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _not_valid() from None
    if not isinstance(value, dict):
        raise _not_valid()
    return value


def _refuse_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of a doubled name could take a different one each."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _parse_header(segment: str) -> str:
    """The ``kid`` of a header that is exactly as ours are."""
    if len(segment) > _LONGEST_HEADER:
        raise _not_valid()
    try:
        data = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise _not_valid() from None
    header = _parse_json(data)
    kid = header.get("kid")
    known = header.keys() == _HEADER_FIELDS and header["alg"] == ALGORITHM and header["typ"] == TOKEN_TYPE
    if not known or not isinstance(kid, str):
        raise _not_valid()
    return kid


def _is_date(value: object, kinds: tuple[type, ...] = (int,)) -> bool:
    """Whether a claim is a date; ``True`` is an ``int`` to Python, but no date."""
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < _HIGHEST_DATE  # type: ignore[operator]


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "iss": lambda value: value == ISSUER,
    "aud": lambda value: value == AUDIENCE,
    "sub": lambda value: isinstance(value, str) and _SUBJECT.fullmatch(value) is not None,
    "jti": lambda value: isinstance(value, str) and _TOKEN_ID.fullmatch(value) is not None,
    "iat": lambda value: _is_date(value, (int, float)),
    "nbf": _is_date,
    "exp": _is_date,
}


def _parse_claims(payload: bytes) -> TokenClaims:
    """The claims of a payload whose signature was right: all of them there, none besides, each of its kind."""
    claims = _parse_json(payload)
    if claims.keys() != _CLAIMS or not all(check(claims[name]) for name, check in _CHECKS.items()):
        raise _not_valid()
    if not 0 < claims["exp"] - claims["nbf"] <= LONGEST_TOKEN_S:
        raise _not_valid()
    return TokenClaims(
        user_id=UserId(claims["sub"]),
        token_id=claims["jti"],
        issued_at=float(claims["iat"]),
        not_before=claims["nbf"],
        expires_at=claims["exp"],
    )
