"""Environments that stand still: by request, at the end of their lifetime, or because nobody used them for a while.

Memory decides, the row follows: what is paused when the process dies is so for the next one, and what was resumed just
before is at worst paused once more.
"""

from collections.abc import Callable
from contextlib import suppress

from sandgate.core.clock import Clock
from sandgate.core.environment import Environment
from sandgate.core.errors import LauncherUnavailable, MechanismFault, PauseUnavailable, SandboxFailed, SandgateError
from sandgate.core.ids import EnvironmentId
from sandgate.core.states import Isolation, OnTimeout
from sandgate.environments.deadlines import Deadlines
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime, Sandbox
from sandgate.store.base import EnvironmentStore
from sandgate.telemetry.log import get_logger

# The launcher's end of a sandbox is behind the one of here, which may still choose to pause.
_SLACK_S = 60.0

_log = get_logger(__name__)


class Pausing:
    """``deadlines`` are those of live environments; ``on_failure`` is told that a sandbox has ended, and why."""

    def __init__(
        self,
        store: EnvironmentStore,
        runtime: Runtime,
        clock: Clock,
        tasks: TaskOwner,
        deadlines: Deadlines[EnvironmentId],
        on_failure: Callable[[EnvironmentId, str], None],
        most_paused_s: int,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._tasks = tasks
        self._deadlines = deadlines
        self._on_failure = on_failure
        self._most_paused_s = most_paused_s
        self._idle: Deadlines[LiveEnvironment] = Deadlines(clock, self._look_if_idle)

    def check(self, isolation: Isolation) -> None:
        """Raises ``PauseUnavailable`` for a class whose environments cannot be paused here."""
        if not self._runtime.can_pause(isolation):
            raise PauseUnavailable(
                f"Environments of isolation class {isolation} cannot be paused on this server: that takes a freezer of "
                "control groups, which the class or the machine does not have",
                {"isolation": isolation.value},
            )

    def wall_s(self, row: Environment, lifetime_s: float) -> float:
        """For how long the launcher is to let a sandbox live that has so much of its lifetime left."""
        if row.on_timeout is OnTimeout.PAUSE:
            return lifetime_s + self._most_paused_s + _SLACK_S
        return lifetime_s

    def watch(self, live: LiveEnvironment) -> None:
        """It runs: from now on see whether it is used, if that matters."""
        self._idle.discard(live)
        if live.row.idle_timeout_s and self._runtime.can_pause(live.row.isolation):
            live.used_at = self._clock.monotonic()
            self._idle.set(live, live.used_at + live.row.idle_timeout_s)

    def check_idle(self) -> None:
        """Begin to pause what has not been used for long enough. A timer does so by itself."""
        self._idle.check()

    def forget(self, live: LiveEnvironment) -> None:
        """It ends."""
        self._idle.discard(live)

    def close(self) -> None:
        """Pause nothing by itself any more."""
        self._idle.close()

    async def pause(self, live: LiveEnvironment, *, at_timeout: bool = False) -> Environment:
        """Pause it, whatever runs in it; durable when it returns. One that is paused stays so.

        Raises ``PauseUnavailable``, ``EnvironmentNotRunning``, ``LauncherUnavailable``, ``StoreUnavailable``; only
        after the last it is paused all the same.
        """
        self.check(live.row.isolation)
        # What is half done is undone, or done: the caller may go away meanwhile.
        return await self._tasks.finish(self._pause(live, at_timeout=at_timeout), f"pause {live.environment_id}")

    async def _pause(self, live: LiveEnvironment, *, at_timeout: bool) -> Environment:
        sandbox = await live.wait_for_made()
        async with live.standing:
            if live.ending is not None:
                raise live.refusal()
            if not live.is_paused:
                await self._freeze(live, sandbox, at_timeout=at_timeout)
        await self._write(live)
        return live.row

    async def _freeze(self, live: LiveEnvironment, sandbox: Sandbox, *, at_timeout: bool) -> None:
        remaining_s = live.row.timeout_s if at_timeout else max(0.0, live.deadline - self._clock.monotonic())
        # First, so that who comes meanwhile waits for the end of this, and has it resumed.
        live.fall_asleep(lambda: self.resume(live))
        try:
            await sandbox.extend(max(self._most_paused_s, remaining_s) + _SLACK_S)
            await sandbox.standstill.begin()
        except SandgateError as fault:
            live.wake()
            with suppress(MechanismFault):
                await sandbox.extend(self.wall_s(live.row, remaining_s))
            raise self._explain(live, sandbox, fault) from fault
        live.row = live.row.paused(self._clock.now(), self._most_paused_s, remaining_s)
        self._idle.discard(live)
        self._set_deadline(live, self._most_paused_s)
        _log.info("environment paused", environment_id=live.environment_id)

    def _explain(self, live: LiveEnvironment, sandbox: Sandbox, fault: SandgateError) -> SandgateError:
        if isinstance(fault, SandboxFailed) and sandbox.failure is not None:
            self._on_failure(live.environment_id, sandbox.failure)
            return live.refusal()
        if isinstance(fault, SandboxFailed):
            reason = fault.details.get("reason", fault.message)
            return LauncherUnavailable(f"Environment {live.environment_id} cannot be paused or resumed now: {reason}")
        return fault

    async def resume(self, live: LiveEnvironment, *, durable: bool = False) -> Environment:
        """Let it go on, if it is paused. Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``.

        ``durable``: and ``StoreUnavailable``; then it goes on all the same.
        """
        await self._tasks.finish(self._thaw(live), f"resume {live.environment_id}")
        if durable:
            await self._tasks.finish(self._write(live), f"note resumed {live.environment_id}")
        else:
            self._tasks.spawn(self._write_if_possible(live), f"note resumed {live.environment_id}")
        return live.row

    async def _thaw(self, live: LiveEnvironment) -> None:
        async with live.standing:
            sandbox = live.asleep
            if live.ending is not None:
                raise live.refusal()
            if sandbox is None:
                return
            row = live.row.resumed(self._clock.now())
            lifetime_s = max(0.0, (row.expires_at - self._clock.now()).total_seconds())
            try:
                await sandbox.standstill.end()
                # It runs, and its time is counted, whatever comes of the rest: the launcher's wall is further away.
                live.row = row
                live.wake()
                self._set_deadline(live, lifetime_s)
                self.watch(live)
                _log.info("environment resumed", environment_id=live.environment_id)
                await sandbox.extend(self.wall_s(row, lifetime_s))
            except SandgateError as fault:
                raise self._explain(live, sandbox, fault) from fault

    def keep_paused(self, live: LiveEnvironment) -> None:
        """An earlier process has left it paused."""
        live.fall_asleep(lambda: self.resume(live))
        self._tasks.spawn(self._freeze_again(live), f"pause {live.environment_id}")

    async def _freeze_again(self, live: LiveEnvironment) -> None:
        async with live.standing:
            sandbox = live.asleep
            if sandbox is None or live.ending is not None:
                return
            try:
                await sandbox.extend(max(self._most_paused_s, live.row.remaining_s or 0.0) + _SLACK_S)
                await sandbox.standstill.begin()
            except SandgateError as fault:
                # It runs on; the next request finds it so.
                _log.warning("not paused again", environment_id=live.environment_id, reason=fault.message)

    def _set_deadline(self, live: LiveEnvironment, seconds: float) -> None:
        live.deadline = self._clock.monotonic() + seconds
        if live.ending is None:
            self._deadlines.set(live.environment_id, live.deadline)

    async def _write(self, live: LiveEnvironment) -> None:
        """Write what memory says now: the last of several writes has the last word."""
        async with live.writing:
            await self._store.write_pause(live.row)

    async def _write_if_possible(self, live: LiveEnvironment) -> None:
        try:
            await self._write(live)
        except MechanismFault as fault:
            _log.warning("status not written", environment_id=live.environment_id, reason=fault.message)

    def _look_if_idle(self, live: LiveEnvironment) -> None:
        """Pause it if it has not been used for long enough; otherwise look again when that may be so."""
        timeout_s = live.row.idle_timeout_s
        if live.ending is not None or live.is_paused or not timeout_s:
            return
        now = self._clock.monotonic()
        if live.is_in_use:
            live.used_at = now
        if now - live.used_at < timeout_s:
            self._idle.set(live, live.used_at + timeout_s)
            return
        self._tasks.spawn(self._pause_idle(live), f"pause {live.environment_id}")

    async def _pause_idle(self, live: LiveEnvironment) -> None:
        try:
            await self.pause(live)
        except SandgateError as fault:
            _log.warning("idle environment not paused", environment_id=live.environment_id, reason=fault.message)
            self.watch(live)
