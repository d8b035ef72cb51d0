"""What steps of runs left."""

from typing import Annotated

from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.errors import RangeNotSatisfiable
from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import FILE_CONTENT, answer_file
from sandgate.http.marks import Query
from sandgate.http.models.artifacts import ArtifactAnswer, ArtifactsAnswer, ListArtifacts
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import ArtifactPath, RunPath
from sandgate.workflows.base import Artifacts

_ARTIFACTS = "/api/v1/orchestrator/runs/{run_id}/artifacts"
_TAG = "artifacts"


def add_artifact_routes(api: Api, artifacts: Artifacts) -> None:
    """Declare the operations."""

    @api.operation("GET", _ARTIFACTS, tag=_TAG, errors=(errors.RunNotFound,))
    async def list_artifacts(
        caller: Caller, run_id: RunPath, query: Annotated[ListArtifacts, Query()]
    ) -> ArtifactsAnswer:
        """List the files that the steps of a run left in `$SANDGATE_ARTIFACTS`, newest first."""
        page = await artifacts.list(caller, run_id, query.page_request("artifact"), step=query.step)
        rows = [ArtifactAnswer.of(artifact) for artifact in page.items]
        return ArtifactsAnswer(artifacts=rows, next_cursor=next_cursor(page))

    @api.operation(
        "GET",
        f"{_ARTIFACTS}/{{artifact_id}}",
        tag=_TAG,
        errors=(errors.RunNotFound, errors.ArtifactNotFound, errors.RangeNotSatisfiable),
        extra=FILE_CONTENT,
    )
    async def get_artifact(caller: Caller, run_id: RunPath, artifact_id: ArtifactPath, request: Request) -> Answer:
        """Download one of them, or a part of it."""
        content = await artifacts.open(caller, run_id, artifact_id)
        found = content.artifact
        try:
            exchange = exchange_of(request.scope)
            return answer_file(exchange, content, found.size_bytes, found.path.rpartition("/")[2], found.sha256.hex())
        except RangeNotSatisfiable:
            content.close()
            raise
