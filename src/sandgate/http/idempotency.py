"""Requests that may be sent again without being carried out twice."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request

from sandgate.core.clock import Clock
from sandgate.core.errors import IdempotencyInProgress, IdempotencyKeyReused, SandgateError, StoreUnavailable
from sandgate.core.idempotency import Keep, KeptAnswer, KeyClaim
from sandgate.core.ids import UserId, make_id
from sandgate.http.answer import Answer
from sandgate.http.bodies import refuse_field
from sandgate.http.connection import ClientGone
from sandgate.http.exchange import Exchange, exchange_of
from sandgate.store.base import IdempotencyStore, SavedAnswer
from sandgate.telemetry.log import get_logger

HEADER = b"idempotency-key"
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_REPLAYED = (b"idempotency-replayed", b"true")

# Fields of bodies and answers that are written nowhere. A request that differs only in them counts as the same one;
# an answer that is given again has null in their place.
SECRET_FIELDS = frozenset({"password", "api_key", "hook_path", "signing_secret"})

RecordT = TypeVar("RecordT")

_log = get_logger(__name__)


class IdempotentRequests:
    """Carries out each (user, key) once and gives the first answer again, for as long as the setting says.

    ``server_id`` names this server, whose death gives its claims back.
    """

    def __init__(self, store: IdempotencyStore, clock: Clock, retention_s: float, server_id: str) -> None:
        self._store = store
        self._clock = clock
        self._retention = timedelta(seconds=retention_s)
        self._server_id = server_id

    async def answer(
        self,
        exchange: Exchange,
        user_id: UserId,
        target: Sequence[str],
        body: BaseModel | None,
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """What ``work`` answers, or what it answered the first time. ``target`` is what the path names.

        Raises what ``work`` raises, after which the key may be used again, and ``IdempotencyKeyReused``,
        ``IdempotencyInProgress``, ``StoreUnavailable``.
        """
        claim = KeyClaim(user_id, _parse_key(exchange), make_id("claim"), self._server_id)
        digest = _digest(exchange.operation, target, body)
        now = self._clock.now()
        saved = await self._store.claim(claim, digest, at=now, fresh_after=now - self._retention)
        if saved is not None:
            exchange.facts["again"] = True
            return await self._answer_again(exchange, claim, saved, digest, work)
        exchange.claimed = claim
        try:
            answer = await work()
        except (SandgateError, ClientGone):
            # Refused, or an execution that was cancelled because nobody waited for it any more. What was done all the
            # same has left its answer, or a draft, which is the answer from now on.
            await self._store.release(claim)
            raise
        if not exchange.kept:
            await self._save(claim, answer)
        return answer

    async def _answer_again(
        self,
        exchange: Exchange,
        claim: KeyClaim,
        saved: SavedAnswer,
        digest: bytes,
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        if saved.status is not None or saved.request_sha256 != digest or not saved.body:
            return _replay(saved, claim.key, digest)
        # The first request has done what it was to do, and waits for what comes of it. So does this one.
        exchange.drafted = saved.body
        answer = await work()
        saved = await self._store.find(claim.user_id, claim.key) or saved
        if saved.status is not None:
            return _replay(saved, claim.key, digest)
        return Answer(answer.status, answer.body, headers=(_REPLAYED,))

    async def _save(self, claim: KeyClaim, answer: Answer) -> None:
        """Keep the answer. Without it the key stays taken, so that what was done is not done again."""
        try:
            await self._store.save(claim, answer.status, _without_secrets(answer.body))
        except StoreUnavailable as fault:
            _log.warning("answer of an idempotent request not kept", reason=fault.message)


def keeper(
    request: Request, answer: Callable[[RecordT], BaseModel], status: int = 201, *, is_draft: bool = False
) -> Keep[RecordT] | None:
    """What makes the answer about a new record, to be kept with it; None when the request has no key.

    A draft is what the request works on from then on, and counts if its process dies before it has answered.
    """
    exchange = exchange_of(request.scope)
    claim = exchange.claimed
    if claim is None:
        return None

    def keep(record: RecordT) -> KeptAnswer:
        model = answer(record)
        exchange.kept = not is_draft
        body = _without_secrets(model.__pydantic_serializer__.to_json(model))
        return KeptAnswer(claim, None if is_draft else status, body)

    return keep


def _parse_key(exchange: Exchange) -> str:
    given = exchange.headers[HEADER]
    if not _KEY.fullmatch(given):
        refuse_field("Idempotency-Key", "must be 1 to 255 printable ASCII characters without spaces")
    return given.decode("ascii")


def _digest(operation: str, target: Sequence[str], body: BaseModel | None) -> bytes:
    """A fingerprint of what was asked for, independent of how its JSON was laid out."""
    fields: dict[str, Any] = {} if body is None else body.model_dump(mode="json", exclude=set(SECRET_FIELDS))
    return hashlib.sha256(orjson.dumps([operation, *target, fields], option=orjson.OPT_SORT_KEYS)).digest()


def _replay(saved: SavedAnswer, key: str, digest: bytes) -> Answer:
    if saved.request_sha256 != digest:
        raise IdempotencyKeyReused(f"Idempotency-Key {key} was used before with another request; take a new key")
    if saved.status is None:
        raise IdempotencyInProgress(
            f"The first request with Idempotency-Key {key} has not been answered yet; ask again in a moment"
        )
    return Answer(saved.status, saved.body, headers=(_REPLAYED,))


def _without_secrets(body: bytes) -> bytes:
    fields = orjson.loads(body)
    if not SECRET_FIELDS & fields.keys():
        return body
    return orjson.dumps({name: None if name in SECRET_FIELDS else value for name, value in fields.items()})
