"""What clients get to read about artifacts."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sandgate.core.artifact import Artifact
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.pagination import PageQuery

_ARTIFACT = {
    "artifact_id": "artifact-06evrhxr2g000r2s7n0cymq3kd",
    "run_id": "run-06evrhxr2g000r2s7n0cymq3kd",
    "step": "report",
    "item": None,
    "attempt": 1,
    "path": "tables/2026.csv",
    "size_bytes": 13,
    "sha256": "7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069",
    "creation_time": "2026-01-01T00:00:00Z",
}


class ListArtifacts(PageQuery):
    """Which artifacts are wanted."""

    step: Annotated[str | None, Field(max_length=63)] = None


class ArtifactAnswer(Model):
    """A file that a step left. `path` is its name in the folder of its step."""

    model_config = with_example(_ARTIFACT)

    artifact_id: str
    run_id: str
    step: str
    item: Annotated[int | None, Field(description="The index of the item, in a step with `foreach`.")]
    attempt: int
    path: str
    size_bytes: int
    sha256: str
    creation_time: datetime

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactAnswer":
        """From the record."""
        return cls(
            artifact_id=artifact.artifact_id,
            run_id=artifact.run_id,
            step=artifact.step,
            item=artifact.item,
            attempt=artifact.attempt,
            path=artifact.path,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256.hex(),
            creation_time=artifact.created_at,
        )


class ArtifactsAnswer(Model):
    """A page of a run's artifacts, newest first."""

    model_config = with_example({"artifacts": [_ARTIFACT], "next_cursor": None})

    artifacts: list[ArtifactAnswer]
    next_cursor: Cursor
