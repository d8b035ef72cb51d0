"""The outermost layer: every request comes in and every answer leaves through it."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandgate.core.addresses import TrustedProxies
from sandgate.core.errors import SandgateError
from sandgate.http.answer import Answer, Header
from sandgate.http.audit import AuditedRequests
from sandgate.http.connection import AnswerCutOff, ClientGone, find_cut
from sandgate.http.cors import CrossOrigin
from sandgate.http.exchange import Exchange, begin_exchange
from sandgate.http.metrics import HttpMetrics
from sandgate.http.problems import render_internal_error, render_problem, status_of
from sandgate.telemetry.log import get_logger

SAFETY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# What is no page of ours shows nothing, runs nothing, and stands in no frame.
CONTENT_POLICY: Header = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# For a year. Only told over TLS; elsewhere it means nothing. Source: RFC 6797, section 7.2.
STAY_SECURE: Header = (b"strict-transport-security", b"max-age=31536000")
NO_STORE: Header = (b"cache-control", b"no-store")

# What requests are counted as that only ask whether they may ask.
PREFLIGHT = "preflight"

_log = get_logger(__name__)


class Boundary:
    """An ASGI application around another one: request ids, safety headers, metrics, and an answer to every error."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics,
        audit: AuditedRequests | None = None,
        proxies: TrustedProxies | None = None,
        cross_origin: CrossOrigin | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._audit = audit
        self._proxies = proxies or TrustedProxies(())
        self._cross_origin = cross_origin or CrossOrigin()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _decline(scope, receive, send)
            return
        started_at = time.perf_counter()
        is_head = scope["method"] == "HEAD"
        if is_head:
            # Answered like GET; the server leaves the body out.
            scope = {**scope, "method": "GET"}
        exchange = begin_exchange(scope, self._proxies, wants_head_only=is_head)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)

        async def send_dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = _dress(message["headers"], exchange)
                self._cross_origin.dress(message["headers"], exchange)
            await send(message)

        try:
            exchange.check_headers(scope["headers"])
            preflight = self._cross_origin.answer_preflight(scope["method"], exchange)
            if preflight is None:
                await self._app(scope, receive, send_dressed)
            else:
                exchange.operation = PREFLIGHT
                await preflight.send(send_dressed)
        except ClientGone:
            _log.debug("client went away", operation=exchange.operation)
            if self._audit is not None:
                self._audit.tell_gone(exchange)
        except AnswerCutOff as error:
            cut = find_cut(scope)
            if cut is None:
                raise
            # By whoever gives the answer, as often as they like: nothing of this service's has failed.
            _log.debug("answer cut off", operation=exchange.operation, reason=str(error))
            cut()
        except Exception as error:
            if exchange.status:
                raise
            answer = _explain(error, exchange)
            if self._audit is not None:
                self._audit.tell_refused(exchange, answer.status, _code_of(error))
            await answer.send(send_dressed)
        finally:
            self._metrics.count(exchange.operation, exchange.status, time.perf_counter() - started_at)


def _dress(headers: list[Header], exchange: Exchange) -> list[Header]:
    """The headers of an answer with those that every answer has."""
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append(NO_STORE)
    if exchange.is_foreign:
        headers.append((b"x-request-id", exchange.request_id.encode()))
        return headers
    headers.extend(SAFETY_HEADERS)
    if not any(name == CONTENT_POLICY[0] for name, _ in headers):
        headers.append(CONTENT_POLICY)
    if exchange.is_secure:
        headers.append(STAY_SECURE)
    headers.append((b"x-request-id", exchange.request_id.encode()))
    return headers


def _explain(error: Exception, exchange: Exchange) -> Answer:
    """The answer to a request that ended in an error; what is the service's own fault is logged."""
    if not isinstance(error, SandgateError):
        _log.error("request failed", operation=exchange.operation, exc_info=error)
        return render_internal_error(exchange.request_id)
    status = status_of(type(error))
    if status == 500:
        _log.error("request failed", operation=exchange.operation, exc_info=error)
    elif status > 500:
        _log.warning("request not served", operation=exchange.operation, error_code=error.code, reason=error.message)
    else:
        _log.debug("request refused", operation=exchange.operation, error_code=error.code)
    return render_problem(error, exchange.request_id)


def _code_of(error: Exception) -> str:
    return error.code if isinstance(error, SandgateError) else SandgateError.code


async def _decline(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no HTTP request: there is nothing to start or stop, and no web socket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
