"""A process of an environment while it runs, and for some time after its end: its output, and what it is told."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sandgate.config.settings import Settings
from sandgate.core.command import Command, Order, OrderKind, TerminalSize
from sandgate.core.command_talk import CommandStart, CommandTalk
from sandgate.core.errors import ProcessHasNoTerminal, ProcessNotRunning, ProcessStuck, ProcessTakesNoInput
from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.process import Process, ProcessStatus, write_note
from sandgate.core.states import ExecutionStatus
from sandgate.environments.journal import OutputJournal
from sandgate.sandbox.base import RunningExecution

TAG = "process|"
# Of orders that are no input; more than that wait only for a child that does not run.
_MOST_ORDERS = 64
# Without a time limit of its own it is ended with its environment, whose lifetime is bounded.
_NO_LIMIT_S = 10 * 365 * 86_400.0
# What the agent lets be on its way to a command.
_WINDOW_BYTES = 64 * 1024
_SIGNALLED, _ENDED_BY = "Signal", "ended by "

_ENDS = {
    ExecutionStatus.CANCELLED: ProcessStatus.KILLED,
    ExecutionStatus.TIMED_OUT: ProcessStatus.TIMED_OUT,
    ExecutionStatus.OUT_OF_MEMORY: ProcessStatus.OUT_OF_MEMORY,
    ExecutionStatus.LOST: ProcessStatus.LOST,
}


def make_tag(row: Process) -> str:
    """What a later gateway takes the process up by."""
    return f"{TAG}{row.environment_id}|{row.process_id}"


@dataclass(frozen=True, slots=True)
class Kept:
    """A piece of the kept output. ``position`` is where to go on behind it; ``skipped`` is what was not kept before it.

    ``None`` in the place of a number: nobody knows how much.
    """

    position: str
    text: dict[str, str]
    skipped: dict[str, int | None]


class ActiveProcess:
    """See above. ``handle`` is set once a sandbox has it."""

    handle: RunningExecution

    def __init__(
        self, row: Process, commands: Sequence[Sequence[str]], env: dict[str, str], settings: Settings
    ) -> None:
        self._row = row
        self._begun = row.status is ProcessStatus.RUNNING
        self.talk = CommandTalk(_WINDOW_BYTES)
        self.journal = OutputJournal(0, settings.process_output_bytes, sys.maxsize, settings.process_output_bytes_per_s)
        self.ended: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        command = Command(commands, env, row.cwd, row.takes_input, row.terminal)
        self.request = ExecutionRequest(
            "",
            _NO_LIMIT_S if row.timeout_s is None else row.timeout_s,
            watch=self.journal,
            command=CommandStart(command, self.talk, write_note(row)),
            tag=make_tag(row),
        )

    @property
    def row(self) -> Process:
        """As it is now."""
        if self._row.status is ProcessStatus.STARTING and self.talk.pid is not None:
            self._row = replace(self._row, status=ProcessStatus.RUNNING)
        return self._row

    async def wait_begun(self, limit_s: float | None) -> None:
        """Wait until it runs, or has ended, or the time is up; None: there is no limit."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.talk.pid is None and not self.ended.done():
                    await self.talk.wait_for_change()

    async def wait(self, limit_s: float) -> Process:
        """As it is when it has ended, or the time is up."""
        await asyncio.wait({self.ended}, timeout=limit_s)
        return self.row

    def conclude(self, termination: Termination, at: datetime) -> None:
        """It has ended."""
        row, error = self.row, termination.error
        status = _ENDS.get(termination.status, ProcessStatus.EXITED)
        signal = None
        if error is not None and error.name == _SIGNALLED:
            signal = error.value.removeprefix(_ENDED_BY)
        elif status is ProcessStatus.EXITED and row.status is ProcessStatus.STARTING:
            status = ProcessStatus.NOT_STARTED
        self._row = replace(
            row,
            status=status,
            ended_at=at,
            exit_code=termination.exit_code if status is ProcessStatus.EXITED else None,
            signal=signal,
            error=error.value if error is not None and status is ProcessStatus.NOT_STARTED else None,
            usage=termination.usage,
        )
        self.journal.end()
        self.ended.set_result(self._row)
        self.talk.on_input_closed()

    # What it is told

    def check_live(self) -> None:
        """Raises ``ProcessNotRunning``."""
        row = self.row
        if not row.is_live:
            raise ProcessNotRunning(
                f"Process {row.process_id} has ended already ({row.status})", {"status": row.status.value}
            )

    def check_takes_input(self) -> None:
        """Raises ``ProcessNotRunning``, ``ProcessTakesNoInput``."""
        self.check_live()
        row = self.row
        if not (row.takes_input or row.terminal is not None):
            raise ProcessTakesNoInput(f"Process {row.process_id} was started without `stdin`, and without a terminal")
        if not self.talk.takes_input:
            raise ProcessTakesNoInput(
                f"Process {row.process_id} has closed its input, or was told that there is no more"
            )

    def tell(self, order: Order) -> None:
        """Raises ``ProcessNotRunning``, ``ProcessHasNoTerminal``, ``ProcessStuck``."""
        self.check_live()
        row = self.row
        if order.kind is OrderKind.RESIZE and row.terminal is None:
            raise ProcessHasNoTerminal(f"Process {row.process_id} was started without a terminal (`pty`)")
        if self.talk.waiting_orders >= _MOST_ORDERS:
            raise ProcessStuck(
                f"Process {row.process_id} takes nothing any more; kill it", {"waiting": self.talk.waiting_orders}
            )
        self.talk.tell(order)
        if order.size is not None:
            self._row = replace(row, terminal=order.size)

    def resize(self, size: TerminalSize) -> None:
        """Give its terminal another size. Raises what :meth:`tell` does."""
        self.tell(Order(OrderKind.RESIZE, size=size))
