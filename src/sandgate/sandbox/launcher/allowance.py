"""How many descriptors the launcher may still take for what lives long.

It must never lack one for what cannot be put off: the process that has just been cloned, the gateway that connects,
the end of a sandbox. So what is held for long is counted, and refused while there still are some.
"""

import errno
import resource

# For what is open for a moment only, and for what the launcher needs itself.
RESERVED = 96


class Allowance:
    """Counts what is held. The limit is looked at each time, because root can change it while the launcher runs."""

    def __init__(self) -> None:
        self.held = 0

    def take(self, count: int) -> None:
        """Count so many more. Raises ``OSError`` (EMFILE), with nothing counted, when too few would be left."""
        limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self.held + count > limit - RESERVED:
            raise OSError(
                errno.EMFILE,
                f"the launcher holds {self.held} descriptors for sandboxes and may have {limit} in all; end some "
                "environments, or raise its limit of open files",
            )
        self.held += count

    def give_back(self, count: int) -> None:
        """Count so many less."""
        self.held -= count
