"""One method of one path: how a request becomes the arguments of a function, and its result an answer."""

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from starlette.convertors import Convertor
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, compile_path
from starlette.types import Receive, Scope, Send

from sandgate.auth.base import Authenticator
from sandgate.core.errors import MethodNotAllowed, SandgateError
from sandgate.core.principal import Principal
from sandgate.http.answer import PIECE_BYTES, Answer
from sandgate.http.audit import Audit, AuditedRequests, facts_of_body
from sandgate.http.authentication import authenticate
from sandgate.http.bodies import JSON_TYPE, check_media_type, parse_json, read_body, refuse_field, split_form, validate
from sandgate.http.exchange import Exchange, exchange_of
from sandgate.http.idempotency import HEADER as IDEMPOTENCY_HEADER
from sandgate.http.idempotency import IdempotentRequests
from sandgate.http.marks import ParsedBy, Path, Query
from sandgate.http.port_answer import PortAnswer
from sandgate.http.rate import RequestRate, RequestsAtOnce
from sandgate.http.socket_tickets import SocketTickets
from sandgate.http.streaming import EventStream
from sandgate.http.unread import UnreadAnswers
from sandgate.http.web_socket import WebSocketAnswer

# Parts of paths that are credentials.
_SECRET_PARTS = frozenset({"token", "link", "port_link"})

Held = EventStream | WebSocketAnswer | PortAnswer
Endpoint = Callable[..., Awaitable[BaseModel | Answer | Held]]


@dataclass(frozen=True, slots=True)
class Gate:
    """What every operation needs before its own work begins."""

    authenticator: Authenticator
    idempotency: IdempotentRequests
    max_body_bytes: int
    rate: RequestRate
    at_once: RequestsAtOnce
    unread: UnreadAnswers
    audit: AuditedRequests
    tickets: SocketTickets


@dataclass(slots=True)
class Signature:
    """Where each argument of an endpoint comes from; None where it takes no such argument."""

    caller: str | None = None
    request: str | None = None
    body: tuple[str, type[BaseModel], bool] | None = None
    query: tuple[str, type[BaseModel], frozenset[str]] | None = None
    path: list[tuple[str, Callable[[str], object]]] = field(default_factory=list)

    @classmethod
    def of(cls, endpoint: Endpoint) -> "Signature":
        """Read the annotations of an endpoint."""
        found = cls()
        for name, parameter in inspect.signature(endpoint).parameters.items():
            found._add(name, parameter)
        return found

    def _add(self, name: str, parameter: inspect.Parameter) -> None:
        annotation = parameter.annotation
        marks: tuple[Any, ...] = ()
        if get_origin(annotation) is Annotated:
            annotation, *rest = get_args(annotation)
            marks = tuple(rest)
        if annotation is Request:
            self.request = name
        elif annotation is Principal:
            self.caller = name
        elif any(isinstance(mark, Path) for mark in marks):
            parsers = [mark.parse for mark in marks if isinstance(mark, ParsedBy)]
            self.path.append((name, parsers[0] if parsers else str))
        elif any(isinstance(mark, Query) for mark in marks):
            fields = annotation.model_fields.items()
            self.query = (name, annotation, frozenset(key for key, item in fields if _holds_list(item.annotation)))
        else:
            optional = parameter.default is None
            kinds = (annotation, *get_args(annotation))
            model = next(kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel))
            self.body = (name, model, optional)


class Operation(BaseRoute):
    """What is asked for by one method of one path. The attributes that are public are what its description needs.

    The order is the same for all: who is asking, is the path well formed, is the query, is the body, then the use
    case. FastAPI's own machinery reads the body before it knows who asks, takes JSON that is ambiguous, and costs
    more than all the rest of an execution's way through the gateway.
    """

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        gate: Gate,
        *,
        method: str,
        status: int,
        tag: str,
        errors: Collection[type[SandgateError]],
        idempotent: bool,
        audit: Audit,
        allowed: Sequence[str],
        hidden: bool,
        opens_socket: bool,
        extra: dict[str, Any],
    ) -> None:
        self.path = path
        self.endpoint = endpoint
        self.method = method
        self.status = status
        self.tag = tag
        self.errors = errors
        self.idempotent = idempotent
        self.hidden = hidden
        self.extra = extra
        self.operation_id = endpoint.__name__
        self.signature = Signature.of(endpoint)
        self.answer_model = _answer_model(endpoint)
        self._opens_socket = opens_socket
        self._gate = gate
        self._allowed = allowed
        self._audit = audit
        fields = self.answer_model.model_fields if self.answer_model is not None else ()
        self._ids = [name for name in fields if name.endswith("_id")]

    # Most are never asked for, and all of them together take long.
    @cached_property
    def _pattern(self) -> tuple[re.Pattern[str], dict[str, Convertor[Any]]]:
        pattern, _format, convertors = compile_path(self.path)
        return pattern, convertors

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for this path, and with this method; and what parts its path has."""
        pattern, convertors = self._pattern
        found = pattern.match(scope["path"])
        if found is None:
            return Match.NONE, {}
        parts = {name: convertors[name].convert(text) for name, text in found.groupdict().items()}
        return Match.FULL if scope["method"] == self.method else Match.PARTIAL, {"path_params": parts}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose path is this one's."""
        if scope["method"] != self.method:
            allowed = ", ".join(self._allowed)
            raise MethodNotAllowed(
                f"{self.path} does not know {scope['method']}; it knows {allowed}", {"allowed": list(self._allowed)}
            )
        exchange = exchange_of(scope)
        exchange.operation = self.operation_id
        exchange.changes = self._audit is not Audit.READ
        try:
            await self._serve(scope, receive, send, exchange)
        finally:
            if exchange.holds_place and exchange.caller is not None:
                self._gate.at_once.give_back(exchange.caller.user_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        arguments = await self._read(scope, receive, exchange)
        if self.idempotent and IDEMPOTENCY_HEADER in exchange.headers:
            answer = await self._answer_once(exchange, arguments)
        else:
            result = await self.endpoint(**arguments)
            if isinstance(result, WebSocketAnswer):
                with closing(result):
                    await self._hold(result, scope, receive, send, exchange)
                return
            if isinstance(result, EventStream | PortAnswer):
                await self._hold(result, scope, receive, send, exchange)
                return
            answer = self._render(result, exchange)
        if exchange.changes:
            await self._gate.audit.tell_done(exchange, answer.status, self._audit)
        await self._send(answer, receive, send, exchange)

    async def _send(self, answer: Answer, receive: Receive, send: Send, exchange: Exchange) -> None:
        size_bytes = len(answer.body)
        if exchange.caller is None or size_bytes <= PIECE_BYTES:
            await answer.serve(receive, send)
            return
        if not exchange.changes:
            # What has been done is told in any case.
            self._gate.unread.check(exchange.caller.user_id, size_bytes)
        with self._gate.unread.holding(exchange.caller.user_id, size_bytes):
            await answer.serve(receive, send)

    async def _hold(self, result: Held, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        """Serve what goes on for long, as long as the caller would be let in."""
        if exchange.changes:
            await self._gate.audit.tell_done(exchange, self.status, self._audit)
        await result.serve(scope, receive, send, lambda: authenticate(exchange, self._gate.authenticator))

    async def _read(self, scope: Scope, receive: Receive, exchange: Exchange) -> dict[str, Any]:
        signature = self.signature
        arguments: dict[str, Any] = {}
        if signature.caller is not None:
            if self._opens_socket:
                self._gate.tickets.admit(exchange, scope["path"], scope["query_string"])
            caller = exchange.caller = await authenticate(exchange, self._gate.authenticator)
            self._gate.rate.take(caller.user_id)
            self._gate.unread.check(caller.user_id)
            self._gate.at_once.take(caller.user_id)
            exchange.holds_place = True
            arguments[signature.caller] = caller
        for name, parse in signature.path:
            arguments[name] = parse(scope["path_params"][name])
            if name not in _SECRET_PARTS:
                exchange.name_part(name, str(arguments[name]))
        if signature.query is not None:
            name, model, lists = signature.query
            arguments[name] = _read_query(model, lists, scope["query_string"])
        if signature.request is not None:
            arguments[signature.request] = Request(scope, receive)
        if signature.body is not None:
            name, model, optional = signature.body
            body = arguments[name] = await self._read_json(scope, receive, model, optional=optional)
            if body is not None and exchange.changes:
                exchange.facts.update(facts_of_body(body))
        return arguments

    async def _read_json(
        self, scope: Scope, receive: Receive, model: type[BaseModel], *, optional: bool
    ) -> BaseModel | None:
        exchange = exchange_of(scope)
        if not optional:
            check_media_type(exchange, JSON_TYPE)
        raw = await read_body(scope, receive, self._gate.max_body_bytes)
        if optional and not raw:
            return None
        check_media_type(exchange, JSON_TYPE)
        return validate(model, parse_json(raw))

    async def _answer(self, exchange: Exchange, arguments: dict[str, Any]) -> Answer:
        result = await self.endpoint(**arguments)
        if isinstance(result, Held):
            raise TypeError(f"{self.operation_id} streams, and cannot be asked for once")
        return self._render(result, exchange)

    def _render(self, result: BaseModel | Answer, exchange: Exchange) -> Answer:
        if isinstance(result, Answer):
            return result
        if exchange.changes:
            for name in self._ids:
                exchange.name_part(name, getattr(result, name))
        return Answer(self.status, result.__pydantic_serializer__.to_json(result))

    async def _answer_once(self, exchange: Exchange, arguments: dict[str, Any]) -> Answer:
        caller: Principal = arguments[self.signature.caller or ""]
        body: BaseModel | None = arguments.get(self.signature.body[0]) if self.signature.body else None
        target = [str(arguments[name]) for name, _ in self.signature.path]
        return await self._gate.idempotency.answer(
            exchange, caller.user_id, target, body, lambda: self._answer(exchange, arguments)
        )

    def models(self) -> list[type[BaseModel]]:
        """What goes in and comes out."""
        found = [self.answer_model] if self.answer_model is not None else []
        return [*found, self.signature.body[1]] if self.signature.body is not None else found


def _answer_model(endpoint: Endpoint) -> type[BaseModel] | None:
    """The model of what an endpoint answers, None where it makes the answer itself."""
    annotation = inspect.get_annotations(endpoint)["return"]
    # One that can also stream has a union.
    kinds = get_args(annotation) or (annotation,)
    return next((kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel)), None)


def _holds_list(annotation: Any) -> bool:
    """Whether a field takes several values."""
    return get_origin(annotation) is list or any(map(_holds_list, get_args(annotation)))


def _read_query(model: type[BaseModel], lists: frozenset[str], raw: bytes) -> BaseModel:
    """A query string as a model; a field may be repeated where the model has a list."""
    fields: dict[str, Any] = {}
    # Of a list of pairs each may be written as a field of its own.
    pairs: frozenset[str] = getattr(model, "PAIRS", frozenset())
    for name, value in split_form(raw) if raw else ():
        whole, dot, part = name.partition(".")
        if dot and whole in pairs:
            fields.setdefault(whole, []).append(f"{part}={value}")
        elif name in lists:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            refuse_field(name, "is given more than once")
        else:
            fields[name] = value
    return validate(model, fields)
