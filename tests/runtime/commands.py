"""Commands of the tests: started in a sandbox, with all that they write at hand."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sandgate.core.command import Command, Order, OrderKind, TerminalSize
from sandgate.core.command_talk import CommandStart, CommandTalk
from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.session import Bundle
from sandgate.sandbox.base import RunningExecution, Sandbox
from sandgate_agent import wire

_PATIENCE_S = 60.0


class Written:
    """See ``OutputWatch``: all that a command writes; ``paused`` holds back what comes."""

    def __init__(self) -> None:
        self.text = {"stdout": b"", "stderr": b""}
        self.has_begun = False
        self.paused = False
        self._resume: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    @property
    def most_bytes(self) -> int:
        """See ``OutputWatch``."""
        return sys.maxsize

    def begin(self) -> None:
        """See ``OutputWatch``."""
        self.has_begun = True

    def show(self, bundle: Bundle) -> None:
        """See ``OutputWatch``: a command shows nothing."""

    def put(self, stream: str, data: bytes, resume: Callable[[], None]) -> bool:
        """See ``OutputWatch``."""
        self.text[stream] += data
        self._changed.set()
        if self.paused:
            self._resume.append(resume)
        return not self.paused

    def go_on(self) -> None:
        """Take what comes again."""
        self.paused = False
        waiting, self._resume = self._resume, []
        for resume in waiting:
            resume()

    async def until(self, wanted: bytes, stream: str = "stdout", limit_s: float = _PATIENCE_S) -> None:
        """Wait until it has written this."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while wanted not in self.text[stream]:
            self._changed.clear()
            left_s = deadline - asyncio.get_running_loop().time()
            assert left_s > 0, f"{wanted!r} was not written within {limit_s} s: {self.text[stream][-2000:]!r}"
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)


class Started:
    """A command that runs, or ran; without a sandbox one that is to be taken up."""

    execution: RunningExecution

    def __init__(
        self,
        sandbox: Sandbox | None,
        *words: str,
        terminal: tuple[int, int] | None = None,
        timeout_s: float = 2 * _PATIENCE_S,
        tag: str | None = None,
        **fields: Any,
    ) -> None:
        self.talk = CommandTalk(wire.INPUT_WINDOW)
        self.written = Written()
        size = None if terminal is None else TerminalSize(*terminal)
        start = CommandStart(Command([words], terminal=size, **fields), self.talk, b"a note")
        self.request = ExecutionRequest("", timeout_s, watch=self.written, command=start, tag=tag)
        if sandbox is not None:
            self.execution = sandbox.execute(self.request)

    async def begun(self) -> None:
        """Wait until it runs."""
        async with asyncio.timeout(_PATIENCE_S):
            while self.talk.pid is None:
                await self.talk.wait_for_change()

    async def type(self, text: bytes) -> None:
        """Give it input."""
        assert await self.talk.feed(text, _PATIENCE_S) == len(text)

    def signal(self, number: int) -> None:
        """Signal it."""
        self.talk.tell(Order(OrderKind.SIGNAL, number=number))

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        self.talk.tell(Order(OrderKind.RESIZE, size=TerminalSize(rows, columns)))

    async def end(self, limit_s: float = _PATIENCE_S) -> Termination:
        """How it ended."""
        async with asyncio.timeout(limit_s):
            return await self.execution.wait()
