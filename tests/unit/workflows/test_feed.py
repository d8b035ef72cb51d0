"""What a follower of a run gets: everything, once, in order, from wherever it goes on."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.ids import RunId
from sandgate.core.output_tap import OutputTap
from sandgate.core.run import HistoryEvent
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_execution import FakeSource
from sandgate.workflows import feed
from sandgate.workflows.live_output import GrowingText, LiveOutput
from sandgate.workflows.positions import END, MOST_OPEN, Position, parse_position
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.stand import OWNER, Stand, ask, code, output_of, stands

__all__ = ["database_path", "empty_database", "store"]

LONG = 40_000


async def test_an_ended_run_is_told_from_its_records(store: SqlStore) -> None:
    """Its whole history, each step's output before the step's end, and the end of the run as the last event."""
    async with stands(store, "one") as [stand]:
        failing = code("b", f"print('x' * {LONG})\nraise ValueError('no')")
        run = await stand.run_to_end(code("a", "print('hello')"), failing)
        events = await stand.events(run.run_id)
    kinds = [event.kind for event in events if event.kind != "stderr"]
    assert kinds[:5] == ["run_started", "step_started", "stdout", "step_succeeded", "step_started"]
    assert set(kinds[5:-3]) == {"stdout"}
    assert kinds[-3:] == ["step_failed", "run_failed", END]
    texts = output_of(events)
    assert texts["a", None, 1, "stdout"] == "hello\n"
    assert texts["b", None, 1, "stdout"] == "x" * LONG + "\n"
    assert "ValueError: no" in texts["b", None, 1, "stderr"]
    assert (events[-1].data["status"], events[-1].data["error"]["name"]) == ("failed", "StepFailed")


async def test_a_history_that_is_not_seen_yet_ends_nothing(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for again."""
    async with stands(store, "one") as [stand]:
        run = await stand.run_to_end(code("a", "print('hello')"))
        whole = await stand.events(run.run_id)
        list_history, left = store.runs.list_history, [None]

        async def list_late(run_id: RunId, first: int = 0, most: int | None = None) -> Sequence[HistoryEvent]:
            if first == 2 and left:
                left.pop()
                return []
            found = await list_history(run_id, first, most)
            return found[:2] if left else found

        monkeypatch.setattr(store.runs, "list_history", list_late)
        monkeypatch.setattr(feed, "_LOOK_AGAIN_S", 0.001)
        assert await stand.events(run.run_id) == whole
        assert not left


async def test_following_goes_on_after_any_event(store: SqlStore) -> None:
    """Whatever was read last: what is told before and after it is together what is told at once."""
    async with stands(store, "one") as [stand]:
        steps = [code("a", f"print('x' * {LONG})"), code("b", "print('y')", foreach=[1, 2])]
        run = await stand.run_to_end(*steps)
        whole = await stand.events(run.run_id)
        for count, event in enumerate(whole[:-1], 1):
            assert whole[:count] + await stand.events(run.run_id, event.position) == whole
        assert await stand.events(run.run_id, whole[-1].position) == whole[-1:]


async def _read_until(stand: Stand, run_id: RunId, after: str, kind: str) -> str:
    for count in range(1, 50):
        events = await stand.events(run_id, after, count)
        if events[-1].kind == kind:
            return events[-1].position
    raise AssertionError(f"no {kind}")


async def test_output_is_told_while_the_step_runs(store: SqlStore) -> None:
    """And after a break in the middle of it, the rest once the step has ended, from the records."""
    async with stands(store, "one") as [stand]:
        run = await stand.start(code("slow", f"print('x' * {LONG})\ntime.sleep(20)"))
        first = await stand.events(run.run_id, most=3)
        assert [event.kind for event in first] == ["run_started", "step_started", "stdout"]
        assert len(first[2].data["text"]) < LONG
        live = stand.engine.find(run.run_id)
        assert live is not None
        assert live.outputs
        stand.runtime.wake()
        await stand.until_over(run.run_id)
        rest = await stand.events(run.run_id, first[-1].position)
        assert output_of(first + rest)["slow", None, 1, "stdout"] == "x" * LONG + "\n"


async def test_another_server_tells_the_same(store: SqlStore) -> None:
    """History as it happens, output of a step when it has ended; ids of one server are good on the other."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(code("slow", "print('hello')\ntime.sleep(0.1)"), ask())
        first = await one.events(run.run_id, most=3)
        following = asyncio.create_task(two.events(run.run_id, first[-1].position))
        await _read_until(one, run.run_id, "0", "step_waiting")
        await one.service.cancel(OWNER, run.run_id)
        rest = await following
        assert [event.kind for event in rest][-4:] == ["cancel_asked", "step_cancelled", "run_cancelled", END]
        assert first + rest == await one.events(run.run_id)


async def test_a_stopping_server_ends_without_a_last_event(store: SqlStore) -> None:
    """So that the client asks the next server for the rest."""
    async with stands(store, "one") as [stand]:
        run = await stand.start(ask())
        following = asyncio.create_task(stand.events(run.run_id))
        await stand.events(run.run_id, most=2)
        await stand.service.stop()
        assert [event.kind for event in await following] == ["run_started", "step_waiting"]


async def test_output_of_an_attempt_that_was_tried_again(store: SqlStore) -> None:
    """Is told up to its end to whoever follows, and is that of the attempt that wrote it."""
    async with stands(store, "one") as [stand]:
        failing = code("a", "print('hello')\nraise ValueError('no')", retry={"max_attempts": 2, "delay": 0})
        run = await stand.run_to_end(failing)
        texts = output_of(await stand.events(run.run_id))
        assert texts["a", None, 2, "stdout"] == "hello\n"


def test_output_that_nobody_follows_is_not_kept() -> None:
    """And who follows late gets all of it."""
    source, woken = FakeSource("grüße".encode()), 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    output = LiveOutput(3, wake)
    output.tap.open({"stdout": source, "stderr": FakeSource(b"")})
    assert source.on_kept is None
    output.follow()
    assert source.on_kept is not None
    source.on_kept(b"\xc3")
    assert output.read("stdout", 2, 100) == "üße"
    source.on_kept(b"\xbc")
    output.end()
    assert output.read("stdout", 4, 100) == "eü"
    assert output.read("stderr", 0, 100) == ""
    assert woken == 3


def test_a_tap_may_be_listened_to_before_it_is_opened() -> None:
    """Nothing is missed then."""
    heard: list[tuple[str, bytes]] = []
    tap = OutputTap()
    tap.listen(lambda name, data: heard.append((name, data)))
    tap.open({"stdout": FakeSource(b"a"), "stderr": FakeSource(b"")})
    assert heard == [("stdout", b"a")]


class _Doubling:
    """A filter that holds back and changes the length."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        whole = self._held + text
        self._held = whole[-2:]
        return whole[:-2].replace("a", "aa")

    def finish(self, *, cut: bool = False) -> str:
        assert not cut
        return self._held.replace("a", "aa")


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)), st.integers(1, 7))
def test_text_in_parts_is_the_text_of_the_whole(data: bytes, cuts: list[int], most: int) -> None:
    """However it is cut, before and after: broken characters become what they become in the record."""
    text = GrowingText(_Doubling)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    read = ""
    for start, end in pairwise(edges):
        text.feed(data[start:end])
        read += text.read(len(read), most)
    text.finish()
    while part := text.read(len(read), most):
        read += part
    assert read == data.decode("utf-8", "replace").replace("a", "aa")


@given(
    st.integers(0, 10**15 - 1),
    st.dictionaries(st.integers(0, 9999), st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=MOST_OPEN),
)
def test_positions_come_back_as_they_were(number: int, offsets: dict[int, tuple[int, int]]) -> None:
    """And are one short word of plain characters."""
    text = str(Position(number, offsets))
    assert parse_position(text) == Position(number, offsets)
    assert text.isascii()
    assert " " not in text


@given(st.text(max_size=30))
def test_what_is_no_position_is_none(text: str) -> None:
    """Whatever a client sends."""
    position = parse_position(text)
    assert position is None or str(position).split(":")[0] == text.split(":")[0]


async def test_a_position_that_was_made_up_does_no_harm(store: SqlStore) -> None:
    """Beyond the end, or of attempts that there are not."""
    async with stands(store, "one") as [stand]:
        run = await stand.run_to_end(code("a", "print('hello')"))
        for text in ("999", "1:0.999.999", "1:7.1.1,3.1.1", "2:1.5.5"):
            assert (await stand.events(run.run_id, text))[-1].kind == END
