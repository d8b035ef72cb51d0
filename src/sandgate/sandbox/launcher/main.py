"""The launcher as a program."""

import resource
import sys

from sandgate.core.errors import MechanismFault
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.server import Launcher
from sandgate_agent import landlock, system


def main() -> int:
    """Read the configuration from standard input and serve."""
    config = LauncherConfig.from_json(sys.stdin.read())
    system.set_process_name("sg-launcher")
    # Each sandbox costs two descriptors, and three for what is kept of it; what runs inside has limits of its own.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not config.standard and not landlock.find_version():
        log("this kernel has no Landlock: code can reach every file that the launcher's user can")
    launcher = Launcher(config)
    try:
        launcher.open()
    except (MechanismFault, OSError) as error:
        log(f"cannot start: {error}")
        return 1
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    launcher.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
