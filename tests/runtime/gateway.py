"""A gateway to be killed: ``python -m tests.runtime.gateway SOCKET ISOLATION TEMPLATE KEPT DROPPED``.

Makes two environments, leaves a file and running code in each, says so, and waits for its end.
"""

import asyncio
import sys
from pathlib import Path

from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.zygote_runtime import ZygoteRuntime

DAEMON = "import os, time\nopen('kept', 'a').write('x')\nif os.fork() == 0: os.setsid()\ntime.sleep(1000)"


async def main(path: str, isolation: str, template: str, names: list[str]) -> None:
    """Work until killed."""
    runtime = ZygoteRuntime(Isolation(isolation), Path(path))
    await runtime.start(lambda _environment_id, _reason: None)
    for name in names:
        sandbox = await runtime.create(SandboxSpec(EnvironmentId(name), template, Limits(), 120.0))
        for _slot in range(2):
            sandbox.execute(ExecutionRequest(DAEMON, 1000))
        look = "import os, time\nwhile not os.path.exists('kept') or len(open('kept').read()) < 2: time.sleep(0.002)"
        await sandbox.execute(ExecutionRequest(look, 30)).wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.sleep(1000)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
