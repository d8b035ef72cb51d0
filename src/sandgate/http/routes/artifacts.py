"""What steps of runs left."""

from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.errors import RangeNotSatisfiable
from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.documentation import REQUEST_ID_HEADER
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import RANGE_PARAMETERS, answer_file
from sandgate.http.models.artifacts import ArtifactAnswer, ArtifactsAnswer, ListArtifacts
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import ArtifactPath, RunPath
from sandgate.workflows.base import Artifacts

_ARTIFACTS = "/api/v1/orchestrator/runs/{run_id}/artifacts"
_TAG = "artifacts"

_OCTETS: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_CONTENT: dict[str, Any] = {
    "parameters": RANGE_PARAMETERS,
    "responses": {
        "200": {"content": _OCTETS},
        "206": {"description": "The part that was asked for.", "content": _OCTETS, "headers": REQUEST_ID_HEADER},
        "304": {"description": "The file is the one that you have.", "content": _OCTETS, "headers": REQUEST_ID_HEADER},
    },
}


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
        extra=_CONTENT,
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
