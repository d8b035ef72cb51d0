"""Folders of a user that outlive environments, and where environments have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sandgate.core.ids import EnvironmentId, UserId, VolumeId

LONGEST_PATH_BYTES = 1024
LONGEST_NAME_BYTES = 255
DEEPEST_PATH = 16
# What an environment is made of, and what is the user's own before anything is mounted.
_KEPT_TREES = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr")
)
_KEPT_FOLDERS = frozenset(("/home", "/home/user", "/root", "/tmp", "/var", "/var/empty", "/var/tmp", "/workspace"))  # noqa: S108


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume's row. ``condemned`` while it is being deleted: it is given to nobody any more, and counts."""

    volume_id: VolumeId
    owner_id: UserId
    name: str
    size_bytes: int
    created_at: datetime
    server_id: str | None = None
    condemned: bool = False


@dataclass(frozen=True, slots=True)
class VolumeWish:
    """What is asked for with a new environment: a volume of the caller's by its name, and where it is to be."""

    name: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """Where an environment has a volume."""

    volume_id: VolumeId
    name: str
    path: str
    read_only: bool
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "MountedVolume":
        """From what was kept."""
        return cls(**kept)


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume as its owner sees it: ``used_bytes`` None is not known now; ``environments`` have it, live ones."""

    row: Volume
    used_bytes: int | None
    environments: Sequence[EnvironmentId]


def find_path_problem(path: str) -> str | None:
    """Why nothing can be mounted there in any environment; None when it may be possible."""
    if not path.startswith("/") or any(ord(character) < 32 for character in path):
        return "has to begin with / and to have no control characters"
    try:
        parts = path.encode().split(b"/")[1:]
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    if any(part in (b"", b".", b"..") for part in parts):
        return "has to be written without //, /./, /../ and a slash at its end"
    if len(path.encode()) > LONGEST_PATH_BYTES or max(map(len, parts)) > LONGEST_NAME_BYTES:
        return f"has more than {LONGEST_PATH_BYTES} bytes, or a part with more than {LONGEST_NAME_BYTES}"
    if len(parts) > DEEPEST_PATH:
        return f"is more than {DEEPEST_PATH} folders deep"
    if parts[0].decode() in _KEPT_TREES or path in _KEPT_FOLDERS or path.startswith("/var/empty/"):
        return "is a place of the environment's own; take another, such as /data or one below /workspace"
    return None


def find_overlap(paths: Sequence[str]) -> tuple[str, str] | None:
    """Two paths of which one is in the other, or the same; None when there are none."""
    ordered = sorted(path + "/" for path in paths)
    for outer, inner in pairwise(ordered):
        if inner.startswith(outer):
            return outer.rstrip("/"), inner.rstrip("/")
    return None
