"""Tells what changes in a folder, by looking again and again.

Being told by the kernel would need calls that no environment has, and that gVisor knows only in part. Looking takes a
tenth of a processor at most: the more there is, the less often.
"""

import os
import re
import stat
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from sandgate_agent.file_worker import OperationRefused, Worker
from sandgate_agent.walking import Walk

_SHORTEST_S = 0.05
_SHARE = 10
# What is being written for a client, and is no file of anybody's before it has its name.
_UNDER_WAY = re.compile(r"(?:^|/)\.(?:upload|unpack)-[0-9a-f]{16}$")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}

Event = Dict[str, Any]


class _State(NamedTuple):
    """What is compared of an entry."""

    kind: int
    inode: int
    modified_ns: int
    size: int
    mode: int

    @property
    def is_folder(self) -> bool:
        return self.kind == stat.S_IFDIR

    def is_changed(self, before: "_State") -> bool:
        """What changes in a folder is told of what is in it."""
        if self.is_folder:
            return self.mode != before.mode
        return self != before

    def may_be(self, other: "_State") -> bool:
        """Whether it is likely the same thing: a number that is used again is that of something of another time."""
        return self[:3] == other[:3] and (self.is_folder or self.size == other.size)


Seen = Dict[str, _State]


def look(top: str, most: int, *, recursive: bool) -> Seen:
    """All that is in a folder now. Raises ``OSError``, ``OperationRefused``."""
    seen = {}
    for found in Walk(
        top, most, "EOVERFLOW", lambda folder: recursive and not _UNDER_WAY.search(folder), every_kind=True
    ):
        if _UNDER_WAY.search(found.name):
            continue
        status = found.status
        seen[found.name] = _State(found.kind, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)
    return seen


def compare(before: Seen, after: Seen) -> Iterator[Event]:
    """What has changed, in an order in which it can have happened."""
    gone = {name: state for name, state in before.items() if name not in after or after[name].kind != state.kind}
    come = {name: state for name, state in after.items() if name not in before or before[name].kind != state.kind}
    moved = dict(_find_moved(gone, come))
    for name, target in moved.items():
        folder, _, rest = name.rpartition("/")
        # What was moved with its folder is not told of again.
        if not (folder in moved and target == moved[folder] + "/" + rest):
            yield {"event": "moved", "path": name, "to": target, "kind": _name_kind(come[target])}
    for name in reversed(list(gone)):
        if name not in moved:
            yield {"event": "deleted", "path": name, "kind": _name_kind(gone[name])}
    arrived = set(moved.values())
    for name, state in after.items():
        if name in come:
            if name not in arrived:
                yield {"event": "created", "path": name, "kind": _name_kind(state)}
        elif state.is_changed(before[name]):
            yield {"event": "modified", "path": name, "kind": _name_kind(state)}


def _find_moved(gone: Seen, come: Seen) -> Iterator[Tuple[str, str]]:
    """What has gone here and come there."""
    places: Dict[int, List[str]] = {}
    for name, state in come.items():
        places.setdefault(state.inode, []).append(name)
    for name, state in gone.items():
        there = places.get(state.inode, [])
        target = next((each for each in there if come[each].may_be(state)), None)
        if target is not None:
            there.remove(target)
            yield name, target


def _name_kind(state: _State) -> str:
    return _KINDS.get(state.kind, "other")


def _has_ended(channel: int) -> bool:
    """Whether the host has let go."""
    try:
        return not os.read(channel, 1)
    except BlockingIOError:
        return False


def _watch(worker: Worker, path: str, recursive: bool, most_entries: int, most_changes: int) -> None:
    """Answer once it is watched, then tell what changes, until nobody listens or there is too much to look at."""
    seen: Optional[Seen] = look(path, most_entries, recursive=recursive)
    os.set_blocking(worker.channel, False)
    worker.answer({})
    took_s = 0.0
    while seen is not None:
        time.sleep(max(_SHORTEST_S, _SHARE * took_s))
        if _has_ended(worker.channel):
            return
        begun = time.monotonic()
        after = _look_again(path, most_entries, recursive=recursive)
        events = [{"event": "overflow"}] if after is None else list(compare(seen, after))
        if len(events) > most_changes:
            events = [{"event": "overflow"}]
        took_s = time.monotonic() - begun
        for record in worker.group(events):
            worker.send(record)
        seen = after
    worker.send(b"")


def _look_again(path: str, most: int, *, recursive: bool) -> Optional[Seen]:
    """None when there is more than can be watched; nothing where the folder has gone."""
    try:
        return look(path, most, recursive=recursive)
    except OSError:
        return {}
    except OperationRefused:
        return None


OPERATIONS: Dict[str, Callable[..., None]] = {"watch": _watch}
