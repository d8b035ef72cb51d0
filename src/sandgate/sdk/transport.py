"""Requests over HTTP: time limits, trying again, and every failure as one of this package's errors."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from sandgate import __version__
from sandgate.sdk.address import check_credential, is_loopback, parse_address
from sandgate.sdk.errors import ApiError, ServerUnreachable, UnexpectedAnswer

Json = Any
"""A value of JSON: None, bool, int, float, str, list or dict."""

_UNAVAILABLE = 503
_SHOWN = 200
# What says that an answer comes from inside an environment.
_PASSED = "x-sandgate-port"
# The request was not sent, so that it may be sent again whatever it asks for.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request that may be sent twice is sent again: after 503, and after a connection that broke.

    Waits are what ``Retry-After`` says, or grow from ``first_s``; none is longer than ``longest_s``, and nothing is
    sent again once ``total_s`` have passed.
    """

    attempts: int = 5
    first_s: float = 0.2
    longest_s: float = 10.0
    total_s: float = 30.0

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """How long to wait after this attempt, counted from 1."""
        wanted = self.first_s * 2 ** (attempt - 1) if retry_after_s is None else retry_after_s
        return min(self.longest_s, max(0.0, wanted))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. ``key`` is its ``Idempotency-Key``; ``patience_s`` is how long the server may work on the answer.

    A name in ``query`` may have several values.
    """

    method: str
    path: str
    body: Json = None
    query: Mapping[str, str | Sequence[str]] | None = None
    key: str | None = None
    patience_s: float = 0.0

    @property
    def may_repeat(self) -> bool:
        """Whether sending it twice does no more than sending it once. A PUT makes a version each time."""
        return self.key is not None or self.method in ("GET", "DELETE")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of its own."""
        return {} if self.key is None else {"Idempotency-Key": self.key}


class Passed(NamedTuple):
    """An answer that is not this API's own; ``headers`` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class Transport:
    """Connections to one server, kept open. May be used by several threads.

    ``authorization`` is the header that proves who asks, for connections of another kind.
    """

    def __init__(
        self,
        address: str,
        credential: str | None,
        *,
        timeout_s: float,
        retries: RetryPolicy,
        connections: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        self.address = parse_address(address)
        self.timeout_s = timeout_s
        self._retries = retries
        self._sleep = sleep
        checked = None if credential is None else check_credential(credential)
        self.authorization: Mapping[str, str] = {} if checked is None else {"Authorization": f"Bearer {checked}"}
        self._http = httpx.Client(
            base_url=self.address,
            headers={"User-Agent": f"sandgate/{__version__}", **self.authorization},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            transport=connections,
            # A redirection would take the credential to an address that nobody has named.
            follow_redirects=False,
            # What proxies are set up for the network are in the way of what is on this machine.
            trust_env=not is_loopback(self.address),
        )

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def ask(self, asked: Asked) -> Json:
        """The parsed answer. Raises ``ApiError``, ``ServerUnreachable``, ``UnexpectedAnswer``."""
        give_up_at = time.monotonic() + self._retries.total_s
        attempt = 1
        while True:
            try:
                return self._ask_once(asked)
            except (ApiError, ServerUnreachable) as error:
                wait_s = self._find_wait(asked, error, attempt)
                if wait_s is None or time.monotonic() + wait_s > give_up_at:
                    raise
            self._sleep(wait_s)
            attempt += 1

    @contextmanager
    def opened_stream(self, asked: Asked, headers: Mapping[str, str], silence_s: float) -> Iterator[Iterator[bytes]]:
        """The body of a stream of events as it arrives, in pieces, of which one comes within ``silence_s``.

        Raises ``ApiError``, ``ServerUnreachable``, ``UnexpectedAnswer``, from the pieces too.
        """
        limits = httpx.Timeout(self.timeout_s, read=silence_s)
        content = None if asked.body is None else json.dumps(asked.body, allow_nan=False).encode()
        sent = {**headers} if content is None else {**headers, "Content-Type": "application/json"}
        with (
            self._translated(),
            self._http.stream(asked.method, asked.path, content=content, headers=sent, timeout=limits) as response,
        ):
            if not response.is_success:
                response.read()
                raise _refusal(response)
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise UnexpectedAnswer(
                    f"{self.address}{asked.path} was answered as {kind!r}, not as a stream of events"
                )
            yield response.iter_bytes()

    @contextmanager
    def opened_content(self, asked: Asked) -> Iterator[Iterator[bytes]]:
        """The body of an answer as it arrives, in pieces, whatever it is.

        Raises ``ApiError``, ``ServerUnreachable``, from the pieces too.
        """
        with self._translated(), self._http.stream(asked.method, asked.path, params=asked.query) as response:
            if not response.is_success:
                response.read()
                raise _refusal(response)
            yield response.iter_bytes()

    @contextmanager
    def opened_passage(
        self, asked: Asked, headers: Mapping[str, str], content: bytes | Iterable[bytes] | None, silence_s: float
    ) -> Iterator[Passed]:
        """What a server behind this API answers, whatever it is, in pieces, of which one comes within ``silence_s``.

        Raises ``ApiError`` for what this API itself refuses, ``ServerUnreachable``, ``UnexpectedAnswer``.
        """
        limits = httpx.Timeout(self.timeout_s, read=silence_s)
        with (
            self._translated(),
            self._http.stream(
                asked.method, asked.path, content=content, headers=dict(headers), timeout=limits
            ) as response,
        ):
            if _PASSED not in response.headers:
                response.read()
                raise _refusal(response)
            yield Passed(response.status_code, dict(response.headers), response.iter_bytes())

    def send_content(self, asked: Asked, content: bytes | Iterable[bytes]) -> Json:
        """Send bytes as the body; the parsed answer. Never sent twice. Raises what :meth:`ask` does."""
        with self._translated():
            headers = {"Content-Type": "application/octet-stream"}
            response = self._http.request(
                asked.method, asked.path, content=content, params=asked.query, headers=headers
            )
        if response.is_success:
            return _parse(response)
        raise _refusal(response)

    def _ask_once(self, asked: Asked) -> Json:
        limits = httpx.Timeout(
            self.timeout_s, connect=min(self.timeout_s, 10.0), read=self.timeout_s + asked.patience_s
        )
        with self._translated():
            response = self._http.request(
                asked.method,
                asked.path,
                content=None if asked.body is None else json.dumps(asked.body, allow_nan=False).encode(),
                params=asked.query,
                headers=asked.headers | ({} if asked.body is None else {"Content-Type": "application/json"}),
                timeout=limits,
            )
        if response.is_success:
            return _parse(response)
        raise _refusal(response)

    def _find_wait(self, asked: Asked, error: ApiError | ServerUnreachable, attempt: int) -> float | None:
        """Seconds until the request is sent again; None when it is not."""
        if not asked.may_repeat or attempt >= self._retries.attempts:
            return None
        if isinstance(error, ApiError):
            return self._retries.wait_s(attempt, error.retry_after_s) if error.status == _UNAVAILABLE else None
        # Nobody listens there, or the time was over: asking again at once would only take longer to say so.
        return self._retries.wait_s(attempt, None) if error.sent and not error.timed_out else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place that knows the exceptions of httpx."""
        try:
            yield
        except httpx.TimeoutException as error:
            message = f"{self.address} has not answered in time"
            raise ServerUnreachable(message, sent=not isinstance(error, _UNSENT), timed_out=True) from error
        except httpx.TransportError as error:
            message = f"{self.address} cannot be reached: {_reason(error)}"
            raise ServerUnreachable(message, sent=not isinstance(error, _UNSENT)) from error
        except (httpx.InvalidURL, httpx.DecodingError) as error:
            raise UnexpectedAnswer(f"{self.address} cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _parse(response: httpx.Response) -> Json:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        raise UnexpectedAnswer(f"{response.url} was answered with something that is no JSON") from None


def _refusal(response: httpx.Response) -> ApiError | UnexpectedAnswer:
    """The error of an answer that is no success."""
    try:
        error = json.loads(response.content)["error"]
        code, message, details = str(error["code"]), str(error["message"]), error.get("details")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return _strange(response)
    return ApiError(
        response.status_code,
        code,
        message,
        details if isinstance(details, dict) else {},
        request_id=response.headers.get("x-request-id", ""),
        retry_after_s=_retry_after_s(response.headers.get("retry-after", "")),
    )


def read_refusal(status: int, content: bytes, headers: Iterable[tuple[str, str]]) -> ApiError | UnexpectedAnswer:
    """The error of an answer that somebody else has read."""
    request = httpx.Request("GET", "http://server")
    return _refusal(httpx.Response(status, content=content, headers=list(headers), request=request))


def _strange(response: httpx.Response) -> ApiError | UnexpectedAnswer:
    """A proxy in front of a server that is away answers for it, in a form of its own."""
    text = " ".join(response.text[:_SHOWN].split())
    if response.status_code in (502, _UNAVAILABLE, 504):
        message = f"The server behind {response.url.host} is not available: {text}"
        wait_s = _retry_after_s(response.headers.get("retry-after", ""))
        return ApiError(_UNAVAILABLE, "NOT_AVAILABLE", message, retry_after_s=wait_s)
    return UnexpectedAnswer(
        f"{response.url} was answered {response.status_code} in a form that is not this API's: {text}"
    )


def _retry_after_s(header: str) -> float | None:
    """Seconds; the form with a date is not used by this API."""
    return float(header) if header.isascii() and header.isdigit() and len(header) < 10 else None
