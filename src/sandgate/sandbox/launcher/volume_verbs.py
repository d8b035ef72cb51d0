"""The launcher's verbs about volumes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandgate.core.volume import find_overlap, find_path_problem
from sandgate.sandbox.launcher.fields import OfSandbox, ProtocolError, count_of

MOST_MOUNTED, MOST_MEASURED = 16, 200
_VOLUME = re.compile(r"vol-[0-9a-z]{12,40}")


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A volume, which is made of this size when it is not there, and where a sandbox is to have it."""

    volume: str
    size_bytes: int
    path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class MountVolumes(OfSandbox):
    """Give volumes to a sandbox in which no code has run yet."""

    volumes: tuple[VolumeMount, ...]


@dataclass(frozen=True, slots=True)
class MakeVolume:
    """See to it that there is a volume, and that it can be mounted."""

    volume: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Take a volume away; what is mounted of it stays until it is not. One that is not there is no error."""

    volume: str


@dataclass(frozen=True, slots=True)
class MeasureVolumes:
    """How many bytes files take in each volume."""

    volumes: tuple[str, ...]


Volumes = MakeVolume | RemoveVolume | MeasureVolumes


def parse_volume(message: Mapping[str, Any]) -> str:
    """The one that a request is about. Raises ``ProtocolError``."""
    return _id_of(message.get("volume"))


def _id_of(value: Any) -> str:
    if not isinstance(value, str) or not _VOLUME.fullmatch(value):
        raise ProtocolError(f"volume is not of the form {_VOLUME.pattern}")
    return value


def parse_volumes(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Raises ``ProtocolError``."""
    value = message.get("volumes")
    if not isinstance(value, list) or len(value) > MOST_MEASURED:
        raise ProtocolError(f"volumes are not a list of at most {MOST_MEASURED}")
    return tuple(map(_id_of, value))


def parse_mounts(message: Mapping[str, Any]) -> tuple[VolumeMount, ...]:
    """Those that a sandbox is to have. Raises ``ProtocolError``."""
    value = message.get("volumes")
    if not isinstance(value, list) or len(value) > MOST_MOUNTED:
        raise ProtocolError(f"volumes are not a list of at most {MOST_MOUNTED}")
    mounts = tuple(map(_mount, value))
    if find_overlap([mount.path for mount in mounts]):
        raise ProtocolError("volumes are mounted in each other")
    return mounts


def _mount(value: Any) -> VolumeMount:
    if not isinstance(value, dict) or set(value) != set(VolumeMount.__slots__):
        raise ProtocolError("a volume is not " + ", ".join(VolumeMount.__slots__))
    path, read_only = value["path"], value["read_only"]
    if not isinstance(path, str) or find_path_problem(path) is not None or not isinstance(read_only, bool):
        raise ProtocolError("a volume has no path where it can be, or is neither read-only nor not")
    return VolumeMount(_id_of(value["volume"]), count_of(value, "size_bytes", 1), path, read_only)
