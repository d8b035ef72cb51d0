"""The events of a run as they happen, from any position on: its history, and the output of its steps.

Each follower reads at its own pace from what all share: rows, and the kept output of what runs. Nothing is queued for
anybody, so that a slow follower costs no memory. The history comes from the database, and so from any server; output
of a running attempt from the process that works on the run, and from the recorded rows once the attempt has ended.
"""

from collections.abc import AsyncGenerator, Callable, Mapping

from sandgate.core.ids import RunId
from sandgate.core.run import HistoryEvent, Run, StepRun, StepStatus
from sandgate.store.base import Store
from sandgate.workflows.engine import Engine
from sandgate.workflows.live import LiveRun
from sandgate.workflows.live_output import STREAMS, LiveOutput
from sandgate.workflows.positions import END, MOST_OPEN, Batch, FeedEvent, Position

_MOST_ENTRIES = 200
_PART_CHARACTERS = 16_384
_MOST_PARTS = 8
# Runs of other processes are looked at this often, beside whenever their end is heard of.
_LOOK_AGAIN_S = 1.0

Reader = Callable[[str, int], str]
"""Reads a part of a stream, from a character on."""

AttemptKey = tuple[str | None, int | None, int | None]
"""Step, item and attempt."""


class RunFeed:
    """Follows one run for one follower. ``batches`` ends with an ``end`` event once the run has ended.

    It ends without one when the server stops, or the run was removed: whoever wants more asks again from where it was.
    """

    def __init__(self, store: Store, engine: Engine, run_id: RunId, position: Position) -> None:
        self._store = store
        self._engine = engine
        self._run_id = run_id
        self._position = position
        self._begun: dict[AttemptKey, int] = {}
        self._followed: dict[int, LiveOutput] = {}

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Events in order, as many at a time as there are, within bounds. Raises ``StoreUnavailable``."""
        await self._remember()
        while True:
            live = self._engine.find(self._run_id)
            run = live.run if live is not None else await self._store.runs.find(self._run_id)
            if run is None:
                return
            if self._position.next < run.events:
                looked_from = self._position.next
                async for batch in self._history():
                    yield batch
                if self._position.next == looked_from:
                    # The run was seen, its history was not: it was removed, or it is not there for this reader yet.
                    if self._engine.is_stopping:
                        return
                    await self._engine.watch.wait(self._run_id, _LOOK_AGAIN_S)
                continue
            if not run.is_live:
                yield [self._end(run)]
                return
            parts = self._live_parts(live) if live is not None else []
            if parts:
                yield parts
            elif self._engine.is_stopping:
                return
            elif live is not None:
                # Nothing was waited for since it was looked at, so that no change is missed.
                await live.wait_for_change()
            else:
                await self._engine.watch.wait(self._run_id, _LOOK_AGAIN_S)

    async def _remember(self) -> None:
        """Which attempts the position speaks of."""
        for number in list(self._position.offsets):
            found = await self._store.runs.list_history(self._run_id, number, 1)
            if number < self._position.next and found and found[0].kind == "step_started":
                self._begun[_key_of(found[0])] = number
            else:
                del self._position.offsets[number]

    # History

    async def _history(self) -> AsyncGenerator[Batch, None]:
        entries = await self._store.runs.list_history(self._run_id, self._position.next, _MOST_ENTRIES)
        batch: list[FeedEvent] = []
        for entry in entries:
            if entry.kind == "step_started" and "items" not in entry.details:
                self._begun[_key_of(entry)] = entry.number
            elif entry.attempt is not None:
                async for parts in self._rest_of_output(entry):
                    if batch:
                        yield batch
                        batch = []
                    yield parts
            self._position.next = entry.number + 1
            batch.append(self._entry(entry))
        if batch:
            # An empty one would be the end.
            yield batch

    def _entry(self, entry: HistoryEvent) -> FeedEvent:
        data = {
            "number": entry.number,
            "at": entry.at,
            "kind": entry.kind,
            "step": entry.step,
            "item": entry.item,
            "attempt": entry.attempt,
            "details": dict(entry.details),
        }
        return FeedEvent(str(self._position), entry.kind, data)

    def _end(self, run: Run) -> FeedEvent:
        error = run.error
        shown = None if error is None else {"name": error.name, "value": error.value, "traceback": error.traceback}
        data = {"run_id": run.run_id, "status": run.status, "finished_at": run.finished_at, "error": shown}
        return FeedEvent(str(self._position), END, data)

    # Output

    async def _rest_of_output(self, entry: HistoryEvent) -> AsyncGenerator[Batch, None]:
        """What is left of the output of an attempt that the entry ends."""
        number = self._begun.pop(_key_of(entry), None)
        if number is None:
            number = await self._find_beginning(entry)
        if number is None:
            return
        output = self._followed.pop(number, None)
        texts = None if output is not None else _recorded(await self._row_of(entry), entry)
        while True:
            batch = self._parts(entry, number, output) if output is not None else self._cut(entry, number, texts or {})
            if not batch:
                break
            yield batch
        self._position.offsets.pop(number, None)

    async def _find_beginning(self, entry: HistoryEvent) -> int | None:
        """Of an attempt that began before the position, and had written nothing by then; None when there is none."""
        assert entry.step is not None  # noqa: S101 - attempts are those of steps
        assert entry.attempt is not None  # noqa: S101 - looked at before
        return await self._store.runs.find_beginning(self._run_id, entry.step, entry.item, entry.attempt)

    async def _row_of(self, entry: HistoryEvent) -> StepRun | None:
        assert entry.step is not None  # noqa: S101 - attempts are those of steps
        return await self._store.runs.find_step(self._run_id, entry.step, entry.item)

    def _live_parts(self, live: LiveRun) -> list[FeedEvent]:
        """What was written since, by attempts whose beginning has been told."""
        parts: list[FeedEvent] = []
        for (step, item), output in live.outputs.items():
            number = output.number
            is_new = number not in self._position.offsets
            if len(parts) >= _MOST_PARTS:
                break
            if number >= self._position.next or (is_new and len(self._position.offsets) >= MOST_OPEN):
                continue
            row = live.steps[step, item]
            output.follow()
            self._followed[number] = output
            parts += self._parts(row, number, output)
        return parts

    def _parts(self, of: StepRun | HistoryEvent, number: int, output: LiveOutput) -> list[FeedEvent]:
        return self._cut_with(of, number, lambda name, offset: output.read(name, offset, _PART_CHARACTERS))

    def _cut(self, of: StepRun | HistoryEvent, number: int, texts: Mapping[str, str]) -> list[FeedEvent]:
        return self._cut_with(of, number, lambda name, offset: texts.get(name, "")[offset : offset + _PART_CHARACTERS])

    def _cut_with(self, of: StepRun | HistoryEvent, number: int, read: Reader) -> list[FeedEvent]:
        """A few parts of both streams."""
        parts: list[FeedEvent] = []
        for stream, name in enumerate(STREAMS):
            for _ in range(_MOST_PARTS):
                text = read(name, self._position.offset(number, stream))
                if not text:
                    break
                self._position.add(number, stream, len(text))
                data = {"step": of.step, "item": of.item, "attempt": of.attempt, "text": text}
                parts.append(FeedEvent(str(self._position), name, data))
        return parts


def _key_of(entry: HistoryEvent) -> AttemptKey:
    return (entry.step, entry.item, entry.attempt)


def _recorded(row: StepRun | None, entry: HistoryEvent) -> Mapping[str, str]:
    """What was recorded of the attempt's output: a row has that of the last attempt that ended."""
    if row is None or entry.attempt is None:
        return {}
    running = row.status is StepStatus.RUNNING and row.items is None
    if row.attempt != entry.attempt + (1 if running else 0):
        return {}
    return {"stdout": row.stdout, "stderr": row.stderr}
