"""Cancels runs, decides their approvals and retries them, wherever they are worked on."""

import asyncio
from collections.abc import Sequence

from sandgate.core.clock import Clock
from sandgate.core.errors import (
    InvalidRequest,
    RequestRefused,
    RunEnded,
    RunLive,
    RunSucceeded,
)
from sandgate.core.idempotency import Keep
from sandgate.core.principal import Principal
from sandgate.core.run import Run, RunStatus
from sandgate.store.base import Store
from sandgate.workflows.approvals import check_counted, check_may_decide
from sandgate.workflows.engine import Engine
from sandgate.workflows.events import CancelAsked, Decided
from sandgate.workflows.live import LiveRun
from sandgate.workflows.signals import Asker
from sandgate.workflows.state import Graph, Phase, is_approvable

# A cancel answers when the run has ended; what tidies up may take longer than anybody waits for an answer. A decision
# waits for the process that works on the run, or for another one that takes its place.
_CANCEL_WAIT_S = 30.0
_DECISION_WAIT_S = 30.0


class RunControl:
    """What a caller may do to a run that was found to be his."""

    def __init__(self, store: Store, engine: Engine, clock: Clock) -> None:
        self._store = store
        self._engine = engine
        self._asker = Asker(store, clock, engine.watch, engine.hear)

    async def cancel(self, run: Run, who: str) -> Run:
        """Kill what runs, and answer the run when it has ended. Raises ``RunEnded``."""
        live = self._engine.find(run.run_id)
        if live is not None:
            self._engine.cancel(live, who)
            await live.wait_for_end(_CANCEL_WAIT_S)
            if not _was_taken(live):
                return live.run
        elif not run.is_live:
            raise run_ended(run)
        await self._asker.ask(run, CancelAsked(who), _CANCEL_WAIT_S)
        return await self._asker.wait_for_end(run, _CANCEL_WAIT_S)

    async def wait_for_end(self, run: Run, limit_s: float) -> Run:
        """The run once it has ended, or as it is when the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        live = self._engine.find(run.run_id)
        if live is not None:
            await live.wait_for_end(limit_s)
            if not _was_taken(live):
                return live.run
        return await self._asker.wait_for_end(run, deadline - loop.time())

    async def cancel_all(self, runs: Sequence[Run], who: str) -> None:
        """Let all of them be cancelled, without waiting."""
        for run in runs:
            live = self._engine.find(run.run_id)
            if live is not None:
                self._engine.cancel(live, who)
            elif run.is_live:
                await self._ask_quietly(run, CancelAsked(who))

    async def decide(self, run: Run, graph: Graph, caller: Principal, word: Decided) -> None:
        """Approve or reject a step. Raises ``StepNotWaiting``, ``Forbidden``, ``RunEnded``."""
        live = self._engine.find(run.run_id)
        if live is not None:
            key = (word.step, word.item)
            if live.pump is not None and not (key in live.steps and is_approvable(graph, live.steps[key])):
                # What waits on disk already is about to wait here.
                await live.wait_for_change()
            check_may_decide(caller, graph, word, live.steps.get(key), live.steps.get((word.step, None)))
            self._engine.decide(live, word)
            while not live.closed and live.steps[key].is_live:
                await live.wait_for_change()
            if not _was_taken(live):
                check_counted(word, live.steps[key])
                return
        elif not run.is_live:
            raise run_ended(run)
        whole = await self._store.runs.find_step(run.run_id, word.step, None)
        row = whole if word.item is None else await self._store.runs.find_step(run.run_id, word.step, word.item)
        check_may_decide(caller, graph, word, row, whole)
        await self._asker.ask(run, word, _DECISION_WAIT_S)
        check_counted(word, await self._store.runs.find_step(run.run_id, word.step, word.item))

    async def retry(
        self,
        run: Run,
        graph: Graph,
        who: str,
        from_step: str | None,
        gone: RequestRefused,
        keep: Keep[Run] | None = None,
    ) -> Run:
        """Make an ended run go on. Raises ``RunLive``, ``RunSucceeded``, ``InvalidRequest``, and ``gone`` when its
        workflow is.
        """
        if run.is_live:
            raise _run_live(run)
        if run.status is RunStatus.SUCCEEDED:
            raise RunSucceeded(f"Run {run.run_id} succeeded; start the workflow again for another run")
        if from_step is not None and graph.phase_of.get(from_step) is not Phase.MAIN:
            problem = f"has to be the name of a step of `steps`; there is no {from_step[:80]!r}"
            raise InvalidRequest.for_fields([("from", problem)])
        live = await self._engine.retry(run, graph, who, from_step, keep)
        if live is not None:
            return live.run
        found = await self._store.runs.find(run.run_id)
        raise gone if found is None or not found.is_live else _run_live(found)

    async def _ask_quietly(self, run: Run, word: CancelAsked) -> None:
        try:
            await self._asker.ask_once(run, word)
        except RunEnded:
            return


def _was_taken(live: LiveRun) -> bool:
    """Whether another process works on the run now."""
    return live.closed and live.run.is_live


def run_ended(run: Run) -> RunEnded:
    """The refusal for a run that is over."""
    return RunEnded(f"Run {run.run_id} is over ({run.status})", {"status": run.status.value})


def _run_live(run: Run) -> RunLive:
    status = run.status.value
    return RunLive(f"Run {run.run_id} is {status}; cancel it first, or wait for its end", {"status": status})
