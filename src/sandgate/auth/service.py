"""Checks credentials: who logs in, who presents a token or a key, what was ended before its time."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from sandgate.auth.accounts import FRESH_FOR_S, Accounts
from sandgate.auth.api_keys import (
    MOST_KEYS_OF_A_USER,
    PREFIX,
    KeyUses,
    check_api_key,
    make_api_key,
    not_valid,
    parse_api_key,
)
from sandgate.auth.base import IssuedApiKey, IssuedToken
from sandgate.auth.fresh import FreshCache
from sandgate.auth.keys import LONGEST_TOKEN_S
from sandgate.auth.names import check_label, is_user_name
from sandgate.auth.passwords import Passwords
from sandgate.auth.throttle import LoginThrottle
from sandgate.auth.tokens import TokenClaims, Tokens
from sandgate.core.account_stores import CredentialStore
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    ApiKeyNotFound,
    Conflict,
    Forbidden,
    InvalidCredentials,
    InvalidRequest,
    MechanismFault,
    NotAuthenticated,
    StoreUnavailable,
    TooManyRequests,
)
from sandgate.core.idempotency import Keep
from sandgate.core.ids import ApiKeyId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import ApiKey, Principal, User
from sandgate.telemetry.log import get_logger

_MOST_HELD = 10_000
_TIDY_EVERY_S = 15.0
_LAST_TIDY_S = 2.0

_log = get_logger(__name__)


class AuthService:
    """Implements :class:`sandgate.auth.base.Authenticator`.

    What the database says of a user, a key or a revocation is believed for at most a second, and not at all once it
    was changed through this object or the ``accounts`` that it shares with :class:`sandgate.auth.users.UserService`.
    ``run`` must be running somewhere for ``last_used_at`` of keys to be written.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        credentials: CredentialStore,
        passwords: Passwords,
        tokens: Tokens,
        throttle: LoginThrottle,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._credentials = credentials
        self._passwords = passwords
        self._tokens = tokens
        self._throttle = throttle
        self._clock = clock
        self._revoked: FreshCache[str, bool] = FreshCache(clock, max_age_s=FRESH_FOR_S, most=_MOST_HELD)
        self._keys: FreshCache[ApiKeyId, ApiKey] = FreshCache(clock, max_age_s=FRESH_FOR_S, most=_MOST_HELD)
        self._uses = KeyUses(clock)

    async def issue_token(self, name: str, password: str, address: str) -> IssuedToken:
        """See :class:`sandgate.auth.base.Authenticator`."""
        attempt = self._throttle.admit(name, address)
        try:
            # Before the row is read: a password that is changed from here on ends the token that is being made.
            read_at = self._clock.now()
            user = await self._verify_password(name, password)
        except (TooManyRequests, MechanismFault):
            self._throttle.withdraw(attempt)
            raise
        if user is None:
            raise InvalidCredentials("Name and password do not belong together")
        self._throttle.succeed(attempt)
        await self._renew_hash(user, password)
        return self._tokens.issue(user.user_id, max(read_at, user.tokens_valid_from))

    async def authenticate(self, credential: str) -> Principal:
        """See :class:`sandgate.auth.base.Authenticator`."""
        if credential.startswith(PREFIX):
            return await self._authenticate_key(credential)
        claims = self._tokens.verify(credential)
        user = await self._accounts.get(claims.user_id)
        if user is None or user.disabled or claims.issued_at < user.tokens_valid_from.timestamp():
            raise NotAuthenticated("The token is no longer valid; ask for a new one")
        if await self._revoked.get(claims.token_id, self._credentials.is_revoked):
            raise NotAuthenticated("The token was revoked; ask for a new one")
        return Principal(user.user_id, user.name, user.role, token_id=claims.token_id)

    async def revoke(self, caller: Principal, token: str | None) -> None:
        """See :class:`sandgate.auth.base.Authenticator`. A token that was revoked before is no error."""
        if token is not None:
            claims = self._verify_own(caller, token)
            token_id, ends_at = claims.token_id, claims.end
        elif caller.token_id is not None:
            # The caller does not carry the end of its token: no token lives longer than this.
            token_id, ends_at = caller.token_id, self._clock.now() + timedelta(seconds=LONGEST_TOKEN_S)
        else:
            raise InvalidRequest.for_fields([("token", "is needed: the request came with an API key")])
        try:
            await self._credentials.revoke_token(token_id, ends_at)
        finally:  # A cancelled write may be done all the same.
            self._revoked.drop(token_id)

    async def create_api_key(
        self,
        caller: Principal,
        label: str,
        expires_in_s: int | None,
        keep: Keep[IssuedApiKey] | None = None,
    ) -> IssuedApiKey:
        """See :class:`sandgate.auth.base.Authenticator`.

        Also raises ``Forbidden`` for a viewer, who changes nothing, ``InvalidRequest``, and ``Conflict`` when the
        caller has 100 keys.
        """
        if caller.api_key_id is not None:
            raise Forbidden("API keys are made with a token, not with an API key")
        if not caller.can_write:
            raise Forbidden(f"{caller.name} has the role {caller.role}, which makes no API keys")
        check_label(label)
        issued = make_api_key(caller.user_id, label, expires_in_s, self._clock.now())
        present = await self._credentials.list_api_keys(caller.user_id, PageRequest(limit=MOST_KEYS_OF_A_USER))
        if len(present.items) >= MOST_KEYS_OF_A_USER:
            raise Conflict(f"{caller.name} has {MOST_KEYS_OF_A_USER} API keys already; delete one first")
        await self._credentials.insert_api_key(issued.key, keep and keep(issued))
        return issued

    async def list_api_keys(self, caller: Principal, page: PageRequest) -> Page[ApiKey]:
        """See :class:`sandgate.auth.base.Authenticator`."""
        return await self._credentials.list_api_keys(caller.user_id, page)

    async def delete_api_key(self, caller: Principal, api_key_id: ApiKeyId) -> None:
        """See :class:`sandgate.auth.base.Authenticator`."""
        key = await self._credentials.find_api_key(api_key_id)
        if key is None or key.user_id != caller.user_id:
            raise ApiKeyNotFound(f"{caller.name} has no API key {api_key_id}")
        try:
            found = await self._credentials.delete_api_key(api_key_id)
        finally:
            self._keys.drop(api_key_id)
            self._uses.forget(api_key_id)
        if not found:
            raise ApiKeyNotFound(f"{caller.name} has no API key {api_key_id}")

    async def run(self) -> None:
        """Tidy up every few seconds until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(_TIDY_EVERY_S)
                await self._tidy_or_log()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_TIDY_S):
                    await self._tidy_or_log()

    async def tidy(self) -> None:
        """Write when keys were last used, and forget revocations of tokens that have expired by now."""
        uses = self._uses.drain()
        for api_key_id, used_at in uses.items():
            await self._credentials.touch_api_key(api_key_id, used_at)
        await self._credentials.prune_revoked(self._clock.now())

    async def _tidy_or_log(self) -> None:
        """A database that is gone for a while is no reason to stop."""
        try:
            await self.tidy()
        except StoreUnavailable as error:
            _log.warning("could not tidy credentials", reason=error.message)

    async def _verify_password(self, name: str, password: str) -> User | None:
        """The enabled user whose password it is. The work is the same whoever the name belongs to."""
        user = await self._accounts.find_by_name(name) if is_user_name(name) else None
        usable = user is not None and not user.disabled
        matches = await self._passwords.verify(user.password_hash if user and usable else None, password)
        return user if matches else None

    async def _renew_hash(self, user: User, password: str) -> None:
        """Bring the hash to the present cost, now that the password is known."""
        if not self._passwords.needs_rehash(user.password_hash):
            return
        try:
            await self._accounts.replace_hash(user, await self._passwords.hash(password))
        except (TooManyRequests, StoreUnavailable) as error:
            _log.warning("a password hash was not renewed", user_id=user.user_id, reason=error.message)

    async def _authenticate_key(self, credential: str) -> Principal:
        presented = parse_api_key(credential)
        key = await self._keys.get(presented.api_key_id, self._load_key)
        check_api_key(key, presented, self._clock.now())
        user = await self._accounts.get(key.user_id)
        if user is None or user.disabled:
            raise not_valid()
        self._uses.note(key)
        return Principal(user.user_id, user.name, user.role, api_key_id=key.api_key_id)

    async def _load_key(self, api_key_id: ApiKeyId) -> ApiKey:
        """Raises instead of answering None, so that guessed ids push no real ones out of the cache."""
        key = await self._credentials.find_api_key(api_key_id)
        if key is None:
            raise not_valid()
        return key

    def _verify_own(self, caller: Principal, token: str) -> TokenClaims:
        """The claims of a token that the caller may end."""
        try:
            claims = self._tokens.verify(token)
        except NotAuthenticated as error:
            raise InvalidRequest.for_fields([("token", "is not a valid token")]) from error
        if claims.user_id != caller.user_id and not caller.is_admin:
            raise InvalidRequest.for_fields([("token", "is not a valid token")])
        return claims
