"""What the end of a child says about its execution."""

import os
import signal

from sandgate.core.execution import ErrorReport, Usage
from sandgate_agent import wire


def exit_code_of(exited: wire.Exited) -> int:
    """As a shell counts: the code, or 128 and the signal."""
    if os.WIFSIGNALED(exited.wait_status):
        return 128 + os.WTERMSIG(exited.wait_status)
    return os.WEXITSTATUS(exited.wait_status)


def usage_of(exited: wire.Exited | None) -> Usage:
    """What it has used; nothing when that is not known."""
    if exited is None:
        return Usage(cpu_ms=0, peak_memory_bytes=0)
    return Usage(cpu_ms=round((exited.user_us + exited.system_us) / 1000), peak_memory_bytes=exited.peak_memory_bytes)


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
