"""What the end of a child says about its execution."""

import os
import signal
import socket

from sandgate.core.execution import ErrorReport, Usage
from sandgate.core.limits import Limits
from sandgate.sandbox.meter import Measured
from sandgate_agent import wire

# What the service itself works in a slot around an execution: it makes the child before, and the next one after it.
_SERVICE_US = 5000


def exit_code_of(exited: wire.Exited) -> int:
    """As a shell counts: the code, or 128 and the signal."""
    if os.WIFSIGNALED(exited.wait_status):
        return 128 + os.WTERMSIG(exited.wait_status)
    return os.WEXITSTATUS(exited.wait_status)


def usage_of(exited: wire.Exited | None, measured: Measured) -> Usage:
    """What it has used: what was told at its end, where that agrees with what was counted, and otherwise the latter."""
    told_us = 0 if exited is None else exited.user_us + exited.system_us
    counted_us = measured.cpu_us
    if counted_us is None or abs(counted_us - told_us) <= _SERVICE_US:
        counted_us = told_us
    elif not measured.is_whole:
        counted_us = max(counted_us, told_us)
    peak = measured.peak_memory_bytes
    if peak is None:
        peak = 0 if exited is None else exited.peak_memory_bytes
    return Usage(cpu_ms=round(counted_us / 1000), peak_memory_bytes=peak)


def held_much(exited: wire.Exited | None, limits: Limits) -> bool:
    """Whether one of its processes has held half of the memory, as what the kernel kills for want of it mostly has."""
    return exited is not None and 2 * exited.peak_memory_bytes >= limits.memory_bytes


def error_of(exited: wire.Exited | None, exit_code: int | None, report: "tuple[str, str, str] | None") -> ErrorReport:
    """What went wrong: the child's own report, or what its end shows."""
    if exited is not None and os.WIFSIGNALED(exited.wait_status):
        number = os.WTERMSIG(exited.wait_status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return ErrorReport("Signal", f"ended by {name}", "")
    if report is not None:
        return ErrorReport(*report)
    return ErrorReport("NonZeroExit", f"exit code {exit_code}", "")


def read_report(channel: socket.socket) -> "tuple[str, str, str] | None":
    """What a child that has ended has said of it; None when it said nothing."""
    try:
        return wire.parse_report(channel.recv(wire.REPORT_LIMIT + 1, socket.MSG_DONTWAIT))
    except OSError:
        return None
