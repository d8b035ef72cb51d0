"""Following a run: by events where there are some, over a server that is away, to its end."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from sandgate.cli.streams import PATIENCE_S
from sandgate.cli.workflows import feed
from sandgate.cli.workflows.watching import Watch
from sandgate.sdk.client import Client
from sandgate.sdk.errors import ApiError, ServerUnreachable
from sandgate.sdk.events import ServerEvent
from sandgate.sdk.transport import RetryPolicy
from tests.unit.cli.workflows.views import run

GONE: Any = httpx.ConnectError
REFUSED: Any = {"error": {"code": "RUN_NOT_FOUND", "message": "no", "details": {}}}
AWAY: Any = {"error": {"code": "SERVICE_DRAINING", "message": "it stops", "details": {}}}


class Played:
    """A server that shows these runs one after another, the last one for ever, and these streams of events."""

    def __init__(self, runs: Sequence[Any], streams: Sequence[str | None] = ()) -> None:
        self.runs = list(runs)
        self.streams = list(streams)
        self.resumed: list[str] = []
        self.now = 0.0
        self.said: list[str] = []
        self.events: list[ServerEvent] = []

    def watch(self) -> Watch:
        """A watch of it, whose time does not pass by itself."""
        client = Client(
            "http://host",
            connections=httpx.MockTransport(self._answer),
            retries=RetryPolicy(attempts=1),
            sleep=self.sleep,
        )
        return Watch(
            client, "run-1", on_trouble=self.said.append, on_events=self.events.extend, sleep=self.sleep,
            monotonic=lambda: self.now,
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.now += seconds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return self._stream(request)
        answer = self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
        if isinstance(answer, type):
            raise answer("gone", request=request)
        status = {"RUN_NOT_FOUND": 404, "SERVICE_DRAINING": 503}.get(
            answer.get("error", None) and answer["error"]["code"]
        )
        return httpx.Response(status or 200, json=answer)

    def _stream(self, request: httpx.Request) -> httpx.Response:
        stream = self.streams.pop(0) if self.streams else None
        if stream is None:
            return httpx.Response(404, json=REFUSED)
        self.resumed.append(request.headers.get("last-event-id", ""))
        return httpx.Response(200, text=stream, headers={"content-type": "text/event-stream"})


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads events has a clock of its own."""
    monkeypatch.setattr(feed, "FIRST_WAIT_S", 0.0)


def statuses(watch: Watch) -> list[str]:
    """What is seen of a run until its end."""
    return [view.status for view in watch.views()]


def test_a_run_is_seen_to_its_end() -> None:
    """Without events, by asking now and then."""
    played = Played([run(status="pending"), run(status="running"), run(status="running"), run(status="succeeded")])
    assert statuses(played.watch()) == ["pending", "running", "running", "succeeded"]
    assert (played.said, played.events) == ([], [])


def test_a_run_that_has_ended_is_asked_for_once() -> None:
    """And no events of it."""
    played = Played([run(status="failed")], ["data: x\n\n"])
    assert statuses(played.watch()) == ["failed"]
    assert played.resumed == []


def test_a_server_that_is_away_is_waited_for() -> None:
    """Whether nobody listens or it says that it stops; what is said of it is said each time."""
    played = Played([run(), GONE, AWAY, GONE, run(status="succeeded")])
    assert statuses(played.watch()) == ["running", "succeeded"]
    assert [text.split("; ")[-1] for text in played.said] == ["trying again"] * 3


@pytest.mark.parametrize(("away", "error"), [(GONE, ServerUnreachable), (AWAY, ApiError)])
def test_it_is_not_waited_for_without_end(away: Any, error: type[Exception]) -> None:
    """After some minutes the command gives up, with what was the matter last."""
    played = Played([run(), away])
    with pytest.raises(error):
        statuses(played.watch())
    assert PATIENCE_S * 0.9 < played.now <= PATIENCE_S + 5


@pytest.mark.parametrize("answers", [[GONE], [REFUSED], [run(), REFUSED]])
def test_a_refusal_is_final(answers: list[Any]) -> None:
    """And so is a server that was never there."""
    with pytest.raises((ServerUnreachable, ApiError)):
        statuses(Played(answers).watch())


def until(seen: Callable[[], bool]) -> Callable[[float], None]:
    """A sleep that lasts until the thread of events has done something."""

    def sleep(_seconds: float) -> None:
        for _ in range(2000):
            if seen():
                return
            threading.Event().wait(0.005)

    return sleep


def test_events_are_handed_on_and_resumed() -> None:
    """Each once, over connections that end; the next one goes on after the last event."""
    streams = ["id: 1\ndata: a\n\nid: 2\ndata: b\n\n", "id: 3\ndata: c\n\n", None]
    played = Played([run(), run(), run(), run(status="succeeded")], streams)
    watch = played.watch()
    watch._sleep = until(lambda: not played.streams)
    assert statuses(watch)[-1] == "succeeded"
    assert played.resumed == ["", "2"]
    assert [event.data for event in played.events] == ["a", "b", "c"]
