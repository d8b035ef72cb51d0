"""Steps of type ``http``: from their ``config`` to a request, and from its answer to what the step comes to."""

import asyncio
import codecs
import json
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from email.message import Message as MimeHeaders
from typing import NoReturn
from urllib.parse import urlsplit

from sandgate import __version__
from sandgate.core.errors import ExpressionError
from sandgate.core.execution import ErrorReport
from sandgate.core.fair_slots import FairSlots
from sandgate.core.run import StepResult, StepStatus
from sandgate.core.workflow import Json, StepDefinition
from sandgate.workflows.attempts import DEFAULT_TIMEOUT_S, explain, failure, parse_outputs
from sandgate.workflows.conditions import MOST_DATA_BYTES
from sandgate.workflows.expressions import Work, render, render_text
from sandgate.workflows.maskers import mask_apart
from sandgate.workflows.masking import MASK, Masker
from sandgate.workflows.one_by_one import OneByOne
from sandgate.workflows.requests.client import Client, Header, Message, Reply
from sandgate.workflows.requests.egress import Egress
from sandgate.workflows.requests.problems import RequestProblem
from sandgate.workflows.requests.target import Target, follow, parse_target

MOST_REDIRECTS = 5
MOST_BODY_BYTES = 1024 * 1024
_LONGEST_KIND = 512
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What may be told to a host that a redirect leads to: everything else was meant for the first one.
_HARMLESS = frozenset({"accept", "accept-language", "user-agent", "accept-encoding"})
_CHARSETS = re.compile(
    r"utf-?(8|16|32)([-_]?[lb]e)?|(us-)?ascii|latin-?1|iso-8859-\d+|windows-125\d|shift_jis|euc-(jp|kr)|gb(k|2312|18030)"
    r"|big5|koi8-[ru]",
    re.IGNORECASE,
)


class HttpSteps:
    """``most`` requests are under way at once, ``most_of_one`` of them of one owner; answers have ``most_bytes``."""

    def __init__(
        self,
        egress: Egress | None = None,
        *,
        most: int = 64,
        most_of_one: int = 16,
        most_bytes: int = MOST_DATA_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._egress = egress or Egress()
        self._client = Client(self._egress, most_bytes, tls)
        self._slots = FairSlots(most, most_of_one)
        self._evaluating = OneByOne()

    def close(self) -> None:
        """Make no more requests."""
        self._egress.close()

    async def run(
        self, step: StepDefinition, context: Mapping[str, Json], masker: Masker | None = None, owner: str = ""
    ) -> StepResult:
        """Make the step's request; the answer shows no secret. When it is cancelled, the connection is closed."""
        masker = masker or Masker()
        async with self._slots.place(owner):
            began = time.monotonic()
            limit_s = DEFAULT_TIMEOUT_S if step.timeout_s is None else step.timeout_s
            secret_host = None
            try:
                async with asyncio.timeout(limit_s):
                    url = await self._evaluating.do(lambda: render_text(step.config["url"], context))
                    target = parse_target(url)
                    secret_host = None if _shows_host(url, masker) else target.host
                    result = await self._request(step, context, target)
            except TimeoutError:
                error = ErrorReport("TimedOut", "the request took longer than it may", "")
                result = StepResult(StepStatus.TIMED_OUT, "timed_out", error=error)
            except ExpressionError as problem:
                result = explain(problem, masker)
            except RequestProblem as problem:
                result = replace(failure(problem.name, problem.text), reason=problem.reason)
            size = len(json.dumps(result.outputs)) if masker else 0
            found = result
            result = await mask_apart(masker, size, lambda: masker.mask_result(found))
            result = _without(result, secret_host)
            return replace(result, duration_ms=round((time.monotonic() - began) * 1000))

    async def _request(self, step: StepDefinition, context: Mapping[str, Json], target: Target) -> StepResult:
        """Raises ``ExpressionError``, ``RequestProblem``."""
        message = await self._evaluating.do(lambda: _message(step.config, context))
        expected: Sequence[int] = step.config.get("expect") or ()
        for _ in range(MOST_REDIRECTS + 1):
            reply = await self._client.send(target, message)
            location = reply.find("location")
            if reply.status not in _REDIRECTS or reply.status in expected or location is None:
                return _judge(target, reply, expected)
            before, target = target, follow(target, location)
            message = _redirected(before, target, message, reply.status)
        raise RequestProblem("TooManyRedirects", f"There are more than {MOST_REDIRECTS} redirects")


def _shows_host(url: str, masker: Masker) -> bool:
    """Whether the host of a URL holds no part of a secret, so that errors may tell it."""
    authority = urlsplit(url).netloc
    _, separator, rest = masker.mask(url).partition("://")
    return not masker or (bool(separator) and re.split("[/?#]", rest, maxsplit=1)[0] == authority)


def _without(result: StepResult, host: str | None) -> StepResult:
    """The result whose error does not tell the host."""
    if host is None or result.error is None:
        return result
    return replace(result, error=replace(result.error, value=result.error.value.replace(host, MASK)))


def _message(config: Mapping[str, Json], context: Mapping[str, Json]) -> Message:
    headers = {"user-agent": f"sandgate/{__version__}", "accept-encoding": "identity"}
    body = b""
    work = Work()
    if config.get("body") is not None:
        value = render(config["body"], context, work)
        is_text = isinstance(value, str)
        body = (value if is_text else json.dumps(value)).encode("utf-8", "replace")
        headers["content-type"] = "text/plain; charset=utf-8" if is_text else "application/json"
        if len(body) > MOST_BODY_BYTES:
            raise RequestProblem("BodyTooLarge", f"The body has {len(body)} bytes; {MOST_BODY_BYTES} is the most")
    if body or config["method"] in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(len(body))
    for name, text in (config.get("headers") or {}).items():
        headers[name.lower()] = _header_value(name, render_text(text, context, work))
    return Message(config["method"], list(headers.items()), body)


def _header_value(name: str, value: str) -> str:
    if not value.isascii() or any((ord(sign) < 32 and sign != "\t") or ord(sign) == 127 for sign in value):
        raise RequestProblem("BadHeader", f"The header {name} is no single line of ASCII")
    return value.strip()


def _redirected(before: Target, target: Target, message: Message, status: int) -> Message:
    """What is sent on. Another host gets neither the body nor what may be a credential."""
    elsewhere = before.origin != target.origin
    turns_to_get = (status == 303 and message.method != "HEAD") or (status in (301, 302) and message.method == "POST")
    if not turns_to_get and elsewhere and message.body:
        text = f"{before.origin} redirects the body of the request to {target.origin}; send it there yourself"
        raise RequestProblem("RedirectRefused", text)
    if turns_to_get:
        headers = [(name, value) for name, value in message.headers if not name.startswith("content-")]
        message = Message("GET", headers, b"")
    if elsewhere:
        message = replace(message, headers=[pair for pair in message.headers if pair[0] in _HARMLESS])
    return message


def _judge(target: Target, reply: Reply, expected: Sequence[int]) -> StepResult:
    if any(value != "identity" for name, value in reply.headers if name == "content-encoding"):
        raise RequestProblem("BadReply", f"{target.origin} answers in an encoding that was not accepted")
    outputs = _outputs(reply)
    if (reply.status in expected) if expected else reply.status < 400:
        return StepResult(StepStatus.SUCCEEDED, "succeeded", outputs=outputs)
    error = ErrorReport("HttpStatus", f"{target.origin} answered {reply.status}", "")
    return StepResult(StepStatus.FAILED, "failed", outputs=outputs, error=error)


def _outputs(reply: Reply) -> Mapping[str, Json]:
    """What steps after it see. Raises ``RequestProblem``."""
    text = json.dumps({"status": reply.status, "headers": _joined(reply.headers), "body": _body(reply)})
    if len(text) > MOST_DATA_BYTES:
        problem = f"The answer is {len(text)} bytes long as JSON; {MOST_DATA_BYTES} is the most"
        raise RequestProblem("ReplyTooLarge", problem, "output_limit")
    try:
        return parse_outputs(text.encode())
    except ValueError as problem:
        raise RequestProblem("BadReply", f"The answer cannot be kept: {problem}") from None


def _joined(headers: Sequence[Header]) -> Mapping[str, str]:
    """Headers of one name become one, as HTTP allows. Source: RFC 9110, section 5.3."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _body(reply: Reply) -> Json:
    """JSON when the answer says so and is, otherwise text."""
    kind = MimeHeaders()
    # The time that this takes to read grows with the square of its length.
    kind["content-type"] = (reply.find("content-type") or "text/plain")[:_LONGEST_KIND]
    text = _text(reply.body, str(kind.get_param("charset") or "utf-8"))
    if kind.get_content_subtype() == "json" or kind.get_content_subtype().endswith("+json"):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return text
    return text


def _text(body: bytes, charset: str) -> str:
    if _CHARSETS.fullmatch(charset):
        with suppress(LookupError):
            return codecs.decode(body, charset, "replace")
    return body.decode("utf-8", "replace")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
