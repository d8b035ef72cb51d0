"""What waits in a session."""

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import SessionBusy
from sandgate.core.execution import ExecutionRequest
from sandgate.core.session import SessionBounds, SessionRequest, SessionStatus
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.session import SandboxSession


async def _none() -> int:
    return 0


async def test_no_more_than_agreed_waits_while_it_starts() -> None:
    """Beside the one that is the first to run then."""
    session = SandboxSession(SessionRequest(bounds=SessionBounds(queued=2)), Settings().limits(), KernelKills(_none))
    for _time in range(3):
        session.execute(ExecutionRequest("1", 1))
    assert (session.status, session.queued) == (SessionStatus.STARTING, 3)
    with pytest.raises(SessionBusy):
        session.execute(ExecutionRequest("1", 1))
    session.end("that is all")
