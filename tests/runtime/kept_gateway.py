"""A gateway to be killed while it runs code with a tag.

``python -m tests.runtime.kept_gateway SOCKET ISOLATION TEMPLATE ENVIRONMENT TAG CODE SPOOL``. It says ``begun`` when
the child has its code, ``seen`` when it has seen a line ``now``, ``ended`` when it has heard of its end, and waits for
its own.
"""

import asyncio
import sys
from pathlib import Path

from sandgate.core.execution import ExecutionRequest, StepData
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.zygote_runtime import ZygoteRuntime


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def main(path: str, isolation: str, template: str, environment: str, tag: str, code: str, spool: str) -> None:
    """Work until killed."""
    runtime = ZygoteRuntime(Isolation(isolation), Path(path), Path(spool))
    await runtime.start(lambda _environment_id, _reason: None)
    sandbox = await runtime.create(SandboxSpec(EnvironmentId(environment), template, Limits(), 120.0))
    running = sandbox.execute(ExecutionRequest(code, 100.0, StepData({"n": 1}, {}), is_last=True, tag=tag))
    # On a busy machine it may have ended before anybody looks.
    while sandbox._first.running is None and not running.ended:  # noqa: ASYNC110 - nobody is told of the first
        await asyncio.sleep(0)
    _say("begun")
    while running._stdout.kept()[-4:] != b"now\n":
        await asyncio.sleep(0.001)
        if running.ended:
            break
    else:
        _say("seen")
    await running.wait()
    _say("ended")
    await asyncio.sleep(1000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:8]))
