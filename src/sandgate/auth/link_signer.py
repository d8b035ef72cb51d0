"""Links that are credentials of their own: all that they allow is written in them, and signed.

Nothing is kept of them. One ends with its time, when its user is disabled, removed or given a new password, and all of
them end with the key that secrets follow from.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from sandgate.auth.accounts import Accounts
from sandgate.core.clock import Clock
from sandgate.core.errors import NotFound
from sandgate.core.ids import UserId
from sandgate.core.principal import Principal

_LONGEST = 12_000


class LinkSigner:
    """``derive`` gives the key of a purpose: links of another are none here. ``refusal`` says that one is none."""

    def __init__(
        self,
        derive: Callable[[str], bytes],
        purpose: str,
        accounts: Accounts,
        clock: Clock,
        refusal: Callable[[str], NotFound],
    ) -> None:
        self._derive = derive
        self._purpose = purpose
        self._accounts = accounts
        self._clock = clock
        self._refusal = refusal

    def make(self, caller: Principal, allowed: Mapping[str, Any], lifetime_s: int) -> tuple[str, datetime]:
        """A link by which anybody may do what the caller may, of what is allowed; and when it ends."""
        now = self._clock.now()
        expires_at = now + timedelta(seconds=lifetime_s)
        said = {"user": caller.user_id, "made": now.timestamp(), "ends": expires_at.timestamp(), **allowed}
        body = _encode(json.dumps(said, separators=(",", ":")).encode())
        return f"{body}.{_encode(self._sign(body))}", expires_at

    async def open(self, token: str) -> tuple[Principal, Mapping[str, Any]]:
        """As whom whoever comes with a link acts, and what it allows. Raises the refusal, ``StoreUnavailable``."""
        said = self.verify(token)
        if self._clock.now() >= datetime.fromtimestamp(said["ends"], UTC):
            raise self._refusal("The link has expired; ask for a new one")
        user = await self._accounts.get(UserId(said["user"]))
        if user is None or user.disabled or said["made"] < user.tokens_valid_from.timestamp():
            raise self._refusal("The link is no longer valid; ask for a new one")
        return Principal(user.user_id, user.name, user.role), said

    def verify(self, token: str) -> Mapping[str, Any]:
        """What a link says that was made here: it is as it was made, and needs no further look. Raises the refusal."""
        body, dot, signature = token.partition(".")
        if not dot or len(token) > _LONGEST or not token.isascii():
            self.refuse()
        if not hmac.compare_digest(self._decode(signature), self._sign(body)):
            self.refuse()
        said: Mapping[str, Any] = json.loads(self._decode(body))
        return said

    def refuse(self) -> NoReturn:
        """It is no link. Raises the refusal."""
        raise self._refusal("There is no such link; get a new one made")

    def _sign(self, body: str) -> bytes:
        return hmac.digest(self._derive(self._purpose), body.encode(), hashlib.sha256)

    def _decode(self, text: str) -> bytes:
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            self.refuse()
        # Of the ways to write the same bytes one is good.
        if _encode(data) != text:
            self.refuse()
        return data


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
