"""Gives a sandbox that is complete, but in which no code has run yet, mounts of the host's.

A process of its own does it: it makes the mounts as root, then enters the user and mount namespace of the sandbox,
where it has the powers of the root in there and no others, and attaches them. So no path of a sandbox is ever followed
with a power that the sandbox does not have itself. What is attached is seen by the child that waits already and by
slots that are added later; nobody inside has the power to take it off.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandgate.sandbox.launcher import mounts, processes
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import calls, system


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mount and where it has to be: at a path below the mount at ``place``.

    ``make`` answers a detached mount; it is called in a process of its own, as root, and may take its time. Raises
    ``OSError``.
    """

    path: str
    read_only: bool
    make: Callable[[], int]
    place: str = "/"


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Descriptors of a sandbox's namespaces; whoever made this closes them."""

    user: int
    mount: int

    @classmethod
    def of(cls, pid: int, pidfd: int) -> "Namespaces":
        """Those of a process. Raises ``OSError``, also when it has ended."""
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            mount = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(user)
            raise
        namespaces = cls(user, mount)
        try:
            # It still lives, so that the number was not another's.
            processes.check_lives(pidfd)
        except OSError:
            namespaces.close()
            raise
        return namespaces

    def close(self) -> None:
        """Let go of them."""
        os.close(self.user)
        os.close(self.mount)


def attach(
    reactor: Reactor,
    namespaces: Namespaces,
    wanted: Sequence[Wanted],
    limit_s: float,
    then: Callable[[str | None], None],
) -> None:
    """Begin; ``then`` is called once: with None when all is attached, with the reason why not otherwise.

    Raises ``OSError``, and then ``then`` is not called.
    """

    def work() -> bytes:
        _attach_all(namespaces, wanted)
        return b""

    def told(answer: bytes | None, reason: str) -> None:
        then(reason if answer is None else None)

    Errand(reactor, work, [namespaces.user, namespaces.mount], limit_s, told)


def _attach_all(namespaces: Namespaces, wanted: Sequence[Wanted]) -> None:
    """Raises ``OSError``."""
    made = [(each, each.make()) for each in wanted]
    for each, mount in made:
        mounts.confine(mount, read_only=each.read_only, user_namespace=namespaces.user)
    launcher = os.getppid()
    # The user namespace first: it brings the power to enter the other.
    system.enter_namespace(namespaces.user)
    system.enter_namespace(namespaces.mount)
    calls.run(system.prepare_identity(0))
    processes.end_with(launcher)
    for each, mount in made:
        try:
            mounts.attach(mount, mounts.open_mount_point(each.path, each.place))
        except OSError as error:
            raise OSError(error.errno, f"nothing can be mounted at {each.path}: {error.strerror}") from None
