"""What a step left behind to be kept."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from sandgate.core.ids import RunId, make_id

ArtifactId = NewType("ArtifactId", str)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that an attempt of a step left. ``path`` is its name inside, and never one of the host.

    Its bytes are the ``size_bytes`` from ``offset_bytes`` on of the run's file ``pack``, which holds all that the
    attempt left.
    """

    artifact_id: ArtifactId
    run_id: RunId
    step: str
    item: int | None
    attempt: int
    path: str
    size_bytes: int
    sha256: bytes
    created_at: datetime
    pack: str
    offset_bytes: int


def make_artifact_id() -> ArtifactId:
    """A new ``artifact-…``."""
    return ArtifactId(make_id("artifact"))
