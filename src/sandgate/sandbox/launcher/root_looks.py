"""Looks at root file systems in processes of their own: they are on a disk, which may be slow, and hostile."""

import errno
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from sandgate.sandbox.launcher.errand import MOST_ANSWER, Errand
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.root_folder import RootFolder, look_at

_LIMIT_S = 20.0

Seen = Callable[[RootFolder | None, str], None]
"""Is given what there is and no reason, or nothing and the reason."""


class RootLooks:
    """One process for each root file system, however many environments wait for it to be made."""

    def __init__(self, reactor: Reactor, layers: Path | None) -> None:
        self._reactor = reactor
        self._layers = layers
        # By environment, and what is being looked at, with those that have asked for it.
        self._waiting: dict[str, Seen] = {}
        self._looks: dict[str, list[tuple[str, Seen]]] = {}

    def __contains__(self, environment_id: str) -> bool:
        """Whether it waits."""
        return environment_id in self._waiting

    def begin(self, environment_id: str, name: str, seen: Seen) -> None:
        """``seen`` is called once, and again with the reason when it fails."""
        if name not in self._looks:
            look = partial(_look, self._layers, name)
            try:
                Errand(self._reactor, look, [], _LIMIT_S, partial(self._on_seen, name))
            except OSError as error:
                return seen(None, error.strerror or str(error))
            self._looks[name] = []
        self._waiting[environment_id] = seen
        return self._looks[name].append((environment_id, seen))

    def give_up(self, environment_id: str, reason: str) -> None:
        """Nobody waits for it any more, if anybody does."""
        seen = self._waiting.pop(environment_id, None)
        if seen is not None:
            seen(None, reason)

    def give_up_all(self, reason: str) -> None:
        """Nobody waits for any."""
        for environment_id in list(self._waiting):
            self.give_up(environment_id, reason)

    def _on_seen(self, name: str, said: bytes | None, reason: str) -> None:
        found = None if said is None else _parse(said)
        for environment_id, seen in self._looks.pop(name):
            # Each by itself, so that one that fails is nobody else's affair.
            tell = partial(self._tell, environment_id, seen, found, reason)
            self._reactor.call_later(0, tell, partial(seen, None))

    def _tell(self, environment_id: str, seen: Seen, found: RootFolder | None, reason: str) -> None:
        # It may have been given up, and have come again for another one.
        if self._waiting.get(environment_id) is seen:
            del self._waiting[environment_id]
            seen(found, reason)


def _look(layers: Path | None, name: str) -> bytes:
    """In the process. Raises ``OSError``."""
    text = json.dumps(asdict(look_at(layers, name))).encode()
    if len(text) > MOST_ANSWER:
        raise OSError(errno.E2BIG, "the names and links in its root are too long together")
    return text


def _parse(said: bytes) -> RootFolder:
    values = json.loads(said)
    links = tuple((path, target) for path, target in values["links"])
    return RootFolder(values["name"], tuple(values["shown"]), tuple(values["bare"]), links)
