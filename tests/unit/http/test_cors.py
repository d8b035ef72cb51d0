"""Scripts of other web pages: nothing unless they were chosen, and never with what a browser adds by itself."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from sandgate.config.settings import read_settings
from sandgate.core.errors import ConfigurationError, NotFound
from sandgate.core.origins import parse_origins
from sandgate.http.answer import Answer
from sandgate.http.boundary import Boundary
from sandgate.http.cors import CrossOrigin
from sandgate.http.exchange import Exchange
from sandgate.http.metrics import HttpMetrics

CHOSEN, OTHER = "https://app.example.com", "https://app.example.com.evil.test"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@dataclass
class _Answered:
    """One request, and what came of it."""

    status: int = 0
    asked: list[str] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The one header of this name."""
        found = [value.decode() for key, value in self.headers if key == name.encode()]
        assert len(found) <= 1, found
        return found[0] if found else None

    @property
    def allows(self) -> list[str]:
        """What is said to browsers about other pages."""
        return sorted(key.decode() for key, _value in self.headers if key.startswith(b"access-control-"))


async def _ask(origins: str, method: str, headers: dict[str, str], *, fails: bool = False) -> _Answered:
    seen = _Answered()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.asked.append(scope["method"])
        if fails:
            raise NotFound("There is nothing here")
        await Answer(200, b"{}").send(send)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.status, seen.headers = message["status"], list(message["headers"])

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "headers": pairs, "client": ("127.0.0.1", 1), "scheme": "http"}
    boundary = Boundary(app, HttpMetrics(), cross_origin=CrossOrigin(parse_origins(origins)))
    await boundary(scope, None, send)  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize("origin", [CHOSEN, OTHER, "null", "*"])
@pytest.mark.parametrize("headers", [{}, PREFLIGHT])
async def test_nothing_is_said_unless_it_is_set(origin: str, headers: dict[str, str]) -> None:
    """A preflight is a request like any other, and nothing varies."""
    answer = await _ask("", "OPTIONS", {"Origin": origin, **headers})
    assert (answer.allows, answer.get("vary"), answer.asked) == ([], None, ["OPTIONS"])


async def test_a_chosen_page_may_ask_and_read() -> None:
    """By its very name, without credentials that a browser adds, also what went wrong."""
    for fails in (False, True):
        answer = await _ask(f"http://localhost:3000, {CHOSEN}", "GET", {"Origin": CHOSEN}, fails=fails)
        assert answer.get("access-control-allow-origin") == CHOSEN
        assert answer.get("vary") == "origin"
        assert "retry-after" in str(answer.get("access-control-expose-headers"))
        assert answer.allows == ["access-control-allow-origin", "access-control-expose-headers"]


@pytest.mark.parametrize(("has_origin", "said"), [(False, CHOSEN), (True, "*")])
async def test_one_statement_about_an_answer_from_inside(has_origin: bool, said: str) -> None:
    """In an address of the API it is this server's; a name of its own is its own affair."""
    exchange = Exchange([(b"origin", CHOSEN.encode())])
    exchange.is_foreign, exchange.has_origin = True, has_origin
    headers = [(b"access-control-allow-origin", b"*"), (b"access-control-allow-credentials", b"true")]
    CrossOrigin(parse_origins(CHOSEN)).dress(headers, exchange)
    assert [value for name, value in headers if name == b"access-control-allow-origin"] == [said.encode()]
    assert ((b"access-control-allow-credentials", b"true") in headers) == has_origin


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "*", "", "https://app.example.com:443", "HTTPS://APP.EXAMPLE.COM", f"{CHOSEN}, {OTHER}"]
)
async def test_other_pages_are_told_nothing(origin: str) -> None:
    """What is nearly a chosen one is another one; caches are told that it depends."""
    answer = await _ask(CHOSEN, "GET", {"Origin": origin})
    assert (answer.allows, answer.get("vary"), answer.status) == ([], "origin", 200)
    answer = await _ask(CHOSEN, "OPTIONS", {"Origin": origin, **PREFLIGHT})
    assert (answer.allows, answer.asked) == ([], ["OPTIONS"])


async def test_a_chosen_page_is_told_what_it_may_send() -> None:
    """Before anybody looks for a credential, which a preflight never has."""
    answer = await _ask(CHOSEN, "OPTIONS", {"Origin": CHOSEN, **PREFLIGHT})
    assert (answer.status, answer.asked) == (204, [])
    assert answer.get("access-control-allow-origin") == CHOSEN
    assert {"GET", "PUT", "DELETE"} <= set(str(answer.get("access-control-allow-methods")).split(", "))
    assert {"authorization", "idempotency-key"} <= set(str(answer.get("access-control-allow-headers")).split(", "))
    assert answer.get("access-control-allow-credentials") is None
    assert answer.get("content-length") is None
    assert answer.get("x-content-type-options") == "nosniff"


async def test_what_only_looks_like_a_preflight_goes_its_way() -> None:
    """OPTIONS without the question, and the question with another method."""
    assert (await _ask(CHOSEN, "OPTIONS", {"Origin": CHOSEN})).asked == ["OPTIONS"]
    assert (await _ask(CHOSEN, "POST", {"Origin": CHOSEN, **PREFLIGHT})).asked == ["POST"]


@pytest.mark.parametrize(
    "text",
    [
        "*", "null", "app.example.com", "https://", "https://*.example.com", "https://a.test/", "https://a.test/path",
        "https://A.test", "https://a.test:443", "http://a.test:80", "ftp://a.test", "https://user@a.test",
        "https://a.test https://b.test", "https://a.test\r\nx: y", "https://a.test,*",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    """A wildcard above all."""
    with pytest.raises(ConfigurationError, match="SANDGATE_CORS_ORIGINS"):
        read_settings({"SANDGATE_CORS_ORIGINS": text})


def test_origins_are_taken_as_they_are() -> None:
    """With ports, and with addresses for a name."""
    text = "https://a.test, http://localhost:3000,http://[::1]:8080 ,, http://127.0.0.1"
    assert parse_origins(text) == {"https://a.test", "http://localhost:3000", "http://[::1]:8080", "http://127.0.0.1"}
    assert read_settings({"SANDGATE_CORS_ORIGINS": text}).cors_origins == text
