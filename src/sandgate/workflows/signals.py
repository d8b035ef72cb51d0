"""Asks things of a run that another process works on, or none at the moment: by rows that outlive them all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from sandgate.core.clock import Clock
from sandgate.core.errors import RunEnded
from sandgate.core.ids import RunId, derive_signal_id, make_signal_id
from sandgate.core.run import Run, RunSignal, SignalKind
from sandgate.store.base import NoteKind, RunNote, Store
from sandgate.workflows.events import CancelAsked, Decided, Event
from sandgate.workflows.watch import RunWatch

# Whoever works on the run is told at once; this is for when that was not heard.
_LOOK_AGAIN_S = 1.0


def signal_of(run_id: RunId, event: CancelAsked | Decided, now: datetime) -> RunSignal:
    """The row that says it."""
    match event:
        case CancelAsked(who):
            return RunSignal(make_signal_id(), run_id, SignalKind.CANCEL, now, {"who": who})
        case Decided(step, approved, who, comment, item):
            body = {"step": step, "approved": approved, "who": who, "comment": comment, "item": item}
            return RunSignal(make_signal_id(), run_id, SignalKind.DECIDE, now, body)


def event_of(signal: RunSignal) -> Event:
    """What the row says."""
    body = signal.body
    match signal.kind:
        case SignalKind.CANCEL:
            return CancelAsked(str(body["who"]))
        case SignalKind.DECIDE:
            words = (str(body["step"]), bool(body["approved"]), str(body["who"]), str(body["comment"]))
            return Decided(*words, item=body.get("item"))


class Asker:
    """``on_note`` is told of each signal, for the case that this process works on the run after all."""

    def __init__(self, store: Store, clock: Clock, watch: RunWatch, on_note: Callable[[RunNote], None]) -> None:
        self._store = store
        self._clock = clock
        self._watch = watch
        self._on_note = on_note

    async def ask(self, run: Run, event: CancelAsked | Decided, limit_s: float) -> None:
        """Say it, durably, and wait until it was acted on, or for ``limit_s``; then it stands all the same.

        Raises ``RunEnded``.
        """
        signal = signal_of(run.run_id, event, self._clock.now())
        await self._say(run, signal)

        async def is_done() -> bool:
            return not await self._store.signals.exists(signal.signal_id)

        await self._until(run.run_id, is_done, limit_s)

    async def ask_once(self, run: Run, event: CancelAsked) -> None:
        """Say it, durably, however often this is called while nobody acts on it. Raises ``RunEnded``."""
        signal = signal_of(run.run_id, event, self._clock.now())
        await self._say(run, replace(signal, signal_id=derive_signal_id(run.run_id)))

    async def _say(self, run: Run, signal: RunSignal) -> None:
        if not await self._store.signals.insert(signal):
            raise RunEnded(f"Run {run.run_id} is over", {"status": run.status.value})
        self._on_note(RunNote(NoteKind.SIGNAL, run.run_id))

    async def wait_for_end(self, run: Run, limit_s: float) -> Run:
        """The run once it has ended, or as it is when the time is over."""
        found = run

        async def is_done() -> bool:
            nonlocal found
            found = await self._store.runs.find(run.run_id) or found
            return not found.is_live

        await self._until(run.run_id, is_done, limit_s)
        return found

    async def _until(self, run_id: RunId, is_done: Callable[[], Awaitable[bool]], limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while not await is_done() and (left_s := deadline - loop.time()) > 0:
            await self._watch.wait(run_id, min(left_s, _LOOK_AGAIN_S))
