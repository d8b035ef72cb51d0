"""A gateway to be killed while several executions with tags run in one sandbox, side by side.

``python -m tests.runtime.several_gateway SOCKET ISOLATION TEMPLATE ENVIRONMENT SPOOL CODES``, where ``CODES`` is a JSON
object of a code for each tag. It says ``begun`` when every child has its code and those that end at once have ended,
and waits for its end. The code of a tag that begins with ``unsent`` is never given to its child.
"""

import asyncio
import json
import sys
from pathlib import Path

from sandgate.core.execution import ExecutionRequest, StepData
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.zygote_runtime import ZygoteRuntime


async def main(path: str, isolation: str, template: str, environment: str, spool: str, codes: str) -> None:
    """Work until killed."""
    runtime = ZygoteRuntime(Isolation(isolation), Path(path), Path(spool))
    await runtime.start(lambda _environment_id, _reason: None)
    sandbox = await runtime.create(SandboxSpec(EnvironmentId(environment), template, Limits(), 120.0))
    running: dict[str, ZygoteExecution] = {}
    for tag, code in json.loads(codes).items():
        execution = sandbox.execute(ExecutionRequest(code, 100.0, StepData({"tag": tag}, {}), tag=tag))
        if tag.startswith("unsent"):
            execution._send = lambda: None  # type: ignore[method-assign]
        running[tag] = execution
        while sandbox._waiting:  # noqa: ASYNC110 - nobody is told when code is given to a child
            await asyncio.sleep(0.001)
        if tag.startswith("ended"):
            await execution.wait()
    # An execution of somebody else, which ends with the gateway.
    sandbox.execute(ExecutionRequest("import time; time.sleep(1000)", 1000))
    while sandbox._waiting:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await asyncio.sleep(1000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:7]))
