"""Runs code in live environments and records how it ended."""

import asyncio
import codecs
from collections.abc import Iterable, Sequence
from datetime import timedelta

from sandgate.config.settings import Settings
from sandgate.core.attempt_tag import parse_tag
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    CodeTooLarge,
    ExecutionInputTooLarge,
    MechanismFault,
    SandboxFailed,
    TooManyExecutionFiles,
)
from sandgate.core.execution import ErrorReport, Execution, ExecutionRequest, Surroundings, Termination
from sandgate.core.ids import ExecutionId, SessionId, make_execution_id
from sandgate.core.language import Language
from sandgate.core.output_tap import OutputTap
from sandgate.core.states import ExecutionStatus
from sandgate.core.tidying import removal_after, remove, tidy, was_killed
from sandgate.environments.journal import OutputJournal
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import ActiveExecution, LiveEnvironment
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Collect, Mask, Resumed, Runtime
from sandgate.store.base import ExecutionStore
from sandgate.telemetry.log import get_logger

# An execution that lasts longer gets a row while it runs; a shorter one costs a single write, at its end.
_WORTH_A_ROW_S = 0.1
# Records that could not be written while the database was away are tried again for this many executions at once.
_MOST_LATE_RECORDS = 1000
_LONGEST_RETRY_DELAY_S = 5.0

_make_decoder = codecs.getincrementaldecoder("utf-8")

_log = get_logger(__name__)


def decode_output(data: bytes, *, truncated: bool) -> str:
    """Output as text, with U+FFFD for what is no UTF-8; a character that the truncation cut in two is left out."""
    return _make_decoder("replace").decode(data, final=False) if truncated else data.decode("utf-8", "replace")


def clean_text(text: str) -> str:
    """Text from a sandbox without lone surrogates, which no encoding can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


# Bytes of output; masking more of it takes long enough to be left to another thread.
_MUCH_OUTPUT = 16_384


async def _masked(termination: Termination, mask: Mask | None) -> Termination:
    if mask is None:
        return termination
    if len(termination.stdout) + len(termination.stderr) <= _MUCH_OUTPUT:
        return mask(termination)
    return await asyncio.to_thread(mask, termination)


class Executions:
    """The executions of this process, from the moment they are handed to a sandbox until they are recorded."""

    def __init__(
        self,
        store: ExecutionStore,
        runtime: Runtime,
        lifecycle: Lifecycle,
        clock: Clock,
        settings: Settings,
        tasks: TaskOwner,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._clock = clock
        self._tasks = tasks
        self._settings = settings
        self._most_code_bytes = settings.max_code_bytes
        self._default_timeout_s = settings.default_execution_timeout_s
        self._most_input_bytes = settings.max_execution_input_bytes
        self._most_files = settings.max_execution_files
        self._late_records = 0

    def check_code(self, code: str) -> None:
        """Raises ``CodeTooLarge``."""
        # A character is at most four bytes long, so that most code need not be encoded to be measured.
        limit = self._most_code_bytes
        if len(code) * 4 > limit and len(code.encode("utf-8", "replace")) > limit:
            raise CodeTooLarge(f"The code is longer than {limit} bytes in UTF-8", {"limit_bytes": limit})

    def check_around(self, around: Surroundings) -> None:
        """Raises ``ExecutionInputTooLarge``, ``TooManyExecutionFiles``."""
        if len(around.files) > self._most_files:
            raise TooManyExecutionFiles(
                f"{len(around.files)} files come with the code; {self._most_files} is the most",
                {"limit": self._most_files},
            )
        size, limit = around.measure(), self._most_input_bytes
        if size > limit:
            raise ExecutionInputTooLarge(
                f"What comes with the code is {size} bytes long; {limit} is the most", {"limit_bytes": limit}
            )

    async def run(
        self,
        live: LiveEnvironment,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None = None,
        language: Language | None = None,
        session_id: SessionId | None = None,
    ) -> Execution:
        """Run code to its end and answer the durable record; see ``Environments.execute``."""
        tap = OutputTap()
        timeout_s = self._default_timeout_s if timeout_s is None else timeout_s
        request = ExecutionRequest(code, timeout_s, around=around, tap=tap, language=language, session_id=session_id)
        active = await self._start(live, request, tap=tap)
        note = asyncio.get_running_loop().call_later(_WORTH_A_ROW_S, self._note_running, active)
        try:
            return await self._conclude(live, active)
        except asyncio.CancelledError:
            active.handle.cancel()
            self._tasks.spawn(self._conclude_alone(live, active), f"conclude {active.row.execution_id}")
            raise
        finally:
            note.cancel()

    async def begin(
        self,
        live: LiveEnvironment,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
        language: Language | None = None,
        session_id: SessionId | None = None,
        *,
        durable: bool,
    ) -> ActiveExecution:
        """Let code begin to run, whoever waits for it, and let its output be seen. ``durable``: its row is written.

        Raises ``StoreUnavailable``, and then it is cancelled.
        """
        limits, settings = live.row.limits, self._settings
        journal = OutputJournal(limits.output_bytes, settings.stream_window_bytes, settings.max_streamed_output_bytes)
        timeout_s = self._default_timeout_s if timeout_s is None else timeout_s
        request = ExecutionRequest(
            code, timeout_s, around=around, watch=journal, language=language, session_id=session_id
        )
        active = await self._start(live, request, journal=journal)
        # Made now, because what fails later has to be heard by whoever asks later.
        active.recorded = asyncio.get_running_loop().create_future()
        note = asyncio.get_running_loop().call_later(_WORTH_A_ROW_S, self._note_running, active)
        self._tasks.spawn(self._conclude_followed(live, active, note), f"conclude {active.row.execution_id}")
        if durable:
            note.cancel()
            try:
                await self._store.insert_running(active.row)
            except BaseException:
                active.handle.cancel()
                raise
        return active

    async def _conclude_followed(
        self, live: LiveEnvironment, active: ActiveExecution, note: asyncio.TimerHandle
    ) -> None:
        await self._conclude_alone(live, active)
        note.cancel()
        if active.recorded is not None and active.recorded.done():
            # It has been looked at, whether or not somebody will come.
            active.recorded.exception()

    async def run_step(
        self, live: LiveEnvironment, request: ExecutionRequest, mask: Mask | None, collect: Collect | None
    ) -> Termination:
        """Run the code of a workflow's step and answer how it ended; it is recorded as other executions are.

        What an earlier process began with the request's tag goes on, and so does its record, which is what
        ``mask`` says. What the step left is collected when it is written.

        When it is cancelled, it raises ``CancelledError`` once nothing of it runs any more.
        """
        active = await self._start(live, request, mask)
        note = asyncio.get_running_loop().call_later(_WORTH_A_ROW_S, self._note_running, active)
        concluding = self._tasks.spawn(self._conclude_alone(live, active), f"conclude {active.row.execution_id}")
        try:
            await asyncio.shield(concluding)
        except asyncio.CancelledError:
            active.handle.cancel()
            await asyncio.shield(concluding)
            await tidy(active.sandbox.execute, request, await active.handle.wait())
            raise
        finally:
            note.cancel()
        ended = await active.handle.wait()
        if collect is not None:
            await collect(active.sandbox.execute, ended)
        await tidy(active.sandbox.execute, request, ended)
        return ended

    async def _start(
        self,
        live: LiveEnvironment,
        request: ExecutionRequest,
        mask: Mask | None = None,
        journal: OutputJournal | None = None,
        tap: OutputTap | None = None,
    ) -> ActiveExecution:
        sandbox = live.get_sandbox() or await live.wait_for_sandbox()
        try:
            resumed = await self._resume(live, request)
            if resumed is not None:
                handle = resumed.execution
            elif request.session_id is None:
                if request.tag is not None:
                    # It may have been paused meanwhile.
                    sandbox = live.get_sandbox() or await live.wait_for_sandbox()
                handle = sandbox.execute(request)
            else:
                handle = live.sessions.get(request.session_id).execute(request)
        except SandboxFailed as fault:
            # The sandbox is gone, but the runtime's word of it is still on its way.
            self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure or fault.message)
            raise live.refusal() from fault
        age_s = 0.0 if resumed is None else resumed.age_s
        active = ActiveExecution(
            self._begin(live, request, age_s), handle, sandbox, mask, journal, tap, removal_after(request)
        )
        live.add(active)
        return active

    async def _resume(self, live: LiveEnvironment, request: ExecutionRequest) -> Resumed | None:
        """Take up what an earlier process began; None when it began nothing with this tag. Raises ``SandboxFailed``."""
        if request.tag is None or request.tag not in self._runtime.kept():
            return None
        resumed = await self._runtime.resume(request, live.row.limits)
        if resumed is None:
            # It must not begin again as the same attempt.
            raise SandboxFailed("The sandbox ended while the process that ran the step was gone")
        return resumed

    async def lose_rest(self, environments: Iterable[LiveEnvironment], server_id: str | None) -> Sequence[ExecutionId]:
        """Mark as lost what an earlier process ran and that nobody has taken up or can. Raises ``StoreUnavailable``.

        ``server_id`` is the process's where there are others.
        """
        known = {execution_id for live in environments for execution_id in live.running}
        for tag in map(parse_tag, self._runtime.kept()):
            if tag.execution_id is not None:
                known.add(tag.execution_id)
        return await self._store.mark_lost(self._clock.now(), known, server_id=server_id)

    def find_active(self, live: LiveEnvironment, execution_id: ExecutionId) -> ActiveExecution | None:
        """An execution that is not recorded yet."""
        return live.running.get(execution_id)

    async def cancel(self, active: ActiveExecution) -> Execution:
        """Kill it and answer its record."""
        active.handle.cancel()
        return await active.wait_for_record()

    async def drain(self, environments: Iterable[LiveEnvironment], grace_s: float) -> None:
        """Wait for what runs, then cancel the rest."""
        # What is paused comes to no end by itself.
        busy = [live for live in environments if live.running and not live.is_paused]
        waits = [asyncio.ensure_future(live.wait_until_idle()) for live in busy]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=grace_s)
            for wait in pending:
                wait.cancel()
        for live in environments:
            live.cancel_all()

    def _begin(self, live: LiveEnvironment, request: ExecutionRequest, age_s: float) -> Execution:
        execution_id = None if request.tag is None else parse_tag(request.tag).execution_id
        return Execution(
            execution_id=execution_id or make_execution_id(),
            environment_id=live.row.environment_id,
            owner_id=live.row.owner_id,
            status=ExecutionStatus.RUNNING,
            timeout_s=request.timeout_s,
            started_at=self._clock.now() - timedelta(seconds=age_s),
            session_id=request.session_id,
        )

    def _note_running(self, active: ActiveExecution) -> None:
        self._tasks.spawn(self._insert_running(active), f"note {active.row.execution_id}")

    async def _insert_running(self, active: ActiveExecution) -> None:
        """Nothing depends on the row: the record at the end is written whether or not it is there."""
        try:
            await self._store.insert_running(active.row)
        except MechanismFault as fault:
            _log.warning("running execution not noted", execution_id=active.row.execution_id, reason=fault.message)

    async def _conclude(self, live: LiveEnvironment, active: ActiveExecution) -> Execution:
        """Wait for the end and record it. Raises ``StoreUnavailable``; the record is then written later."""
        termination = await active.handle.wait()
        active.end_output()
        if active.removal is not None and was_killed(termination.status) and live.ending is None:
            self._tasks.spawn(remove(active.sandbox.execute, active.removal), f"tidy after {active.row.execution_id}")
        session = None if active.row.session_id is None else live.sessions.find(active.row.session_id)
        if session is not None:
            session.note_use(self._clock)
        ended = self._describe(active.row, await _masked(termination, active.mask))
        try:
            await self._store.finish(ended)
        except MechanismFault as fault:
            self._record_later(ended)
            live.remove(active)
            if active.recorded is not None:
                active.recorded.set_exception(fault)
            raise
        live.remove(active)
        if active.recorded is not None and not active.recorded.done():
            active.recorded.set_result(ended)
        return ended

    async def _conclude_alone(self, live: LiveEnvironment, active: ActiveExecution) -> None:
        """Like :meth:`_conclude`, when nobody waits for the answer any more."""
        try:
            await self._conclude(live, active)
        except MechanismFault as fault:
            _log.warning("execution not recorded yet", execution_id=active.row.execution_id, reason=fault.message)

    def _record_later(self, ended: Execution) -> None:
        if self._late_records < _MOST_LATE_RECORDS:
            self._late_records += 1
            self._tasks.spawn(self._record_until_written(ended), f"record {ended.execution_id}")
        else:
            _log.error("execution not recorded", execution_id=ended.execution_id)

    async def _record_until_written(self, ended: Execution) -> None:
        delay_s = 0.1
        try:
            while True:
                await asyncio.sleep(delay_s)
                try:
                    await self._store.finish(ended)
                except MechanismFault:
                    delay_s = min(2 * delay_s, _LONGEST_RETRY_DELAY_S)
                else:
                    return
        finally:
            self._late_records -= 1

    def _describe(self, row: Execution, termination: Termination) -> Execution:
        error = termination.error
        return Execution(
            execution_id=row.execution_id,
            environment_id=row.environment_id,
            owner_id=row.owner_id,
            status=termination.status,
            timeout_s=row.timeout_s,
            started_at=row.started_at,
            finished_at=self._clock.now(),
            duration_ms=round(termination.duration_s * 1000),
            exit_code=termination.exit_code,
            stdout=decode_output(termination.stdout, truncated=termination.stdout_truncated),
            stderr=decode_output(termination.stderr, truncated=termination.stderr_truncated),
            stdout_truncated=termination.stdout_truncated,
            stderr_truncated=termination.stderr_truncated,
            error=None if error is None else _clean_report(error),
            usage=termination.usage,
            session_id=row.session_id,
            results=termination.results,
            results_truncated=termination.results_truncated,
        )


def _clean_report(error: ErrorReport) -> ErrorReport:
    return ErrorReport(clean_text(error.name), clean_text(error.value), clean_text(error.traceback))
