"""Running code, and reading how it went."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.base import Environments
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.connection import while_connected
from sandgate.http.models.environments import ExecutionAnswer, ExecutionsAnswer
from sandgate.http.models.requests import Execute
from sandgate.http.operation import Audit
from sandgate.http.pagination import PageQuery, next_cursor
from sandgate.http.paths import EnvironmentPath, ExecutionPath

_ENVIRONMENT = "/api/v1/sandbox/environments/{environment_id}"
_TAG = "executions"


def add_execution_routes(api: Api, environments: Environments) -> None:
    """Declare the operations. ``execute`` comes first: it is asked for most, and paths are tried in order."""
    _add_execute(api, environments)
    _add_record_routes(api, environments)


def _add_execute(api: Api, environments: Environments) -> None:
    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/execute",
        tag=_TAG,
        audit=Audit.OFTEN,
        idempotent=True,
        errors=(
            errors.EnvironmentNotFound,
            errors.Forbidden,
            errors.EnvironmentNotRunning,
            errors.EnvironmentElsewhere,
            errors.CodeTooLarge,
            errors.ExecutionInputTooLarge,
            errors.TooManyExecutionFiles,
            errors.TooManyExecutions,
            errors.ServiceDraining,
        ),
    )
    async def execute(
        caller: Caller, environment_id: EnvironmentPath, body: Execute, request: Request
    ) -> ExecutionAnswer:
        """Run code in the environment and answer how it went.

        Waits for an environment that is still being made. Each execution is a fresh interpreter on the environment's
        files: variables do not carry over, files do. Executions may run side by side. When the client goes away, the
        execution is cancelled.
        """
        row = await environments.get(caller, environment_id)
        work = environments.execute(caller, environment_id, body.code, body.timeout, body.around())
        return ExecutionAnswer.of(await while_connected(request.receive, work), row.isolation)


def _add_record_routes(api: Api, environments: Environments) -> None:
    @api.operation("GET", f"{_ENVIRONMENT}/executions", tag=_TAG, errors=(errors.EnvironmentNotFound,))
    async def list_executions(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[PageQuery, Query()]
    ) -> ExecutionsAnswer:
        """List the environment's executions, newest first. Records are kept for a week by default."""
        row = await environments.get(caller, environment_id)
        page = await environments.list_executions(caller, environment_id, query.page_request("exec"))
        answers = [ExecutionAnswer.of(item, row.isolation) for item in page.items]
        return ExecutionsAnswer(executions=answers, next_cursor=next_cursor(page))

    @api.operation(
        "GET",
        f"{_ENVIRONMENT}/executions/{{execution_id}}",
        tag=_TAG,
        errors=(errors.EnvironmentNotFound, errors.ExecutionNotFound),
    )
    async def get_execution(
        caller: Caller, environment_id: EnvironmentPath, execution_id: ExecutionPath
    ) -> ExecutionAnswer:
        """Get one execution, running or ended."""
        row = await environments.get(caller, environment_id)
        return ExecutionAnswer.of(await environments.get_execution(caller, environment_id, execution_id), row.isolation)

    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/executions/{{execution_id}}/cancel",
        tag=_TAG,
        errors=(
            errors.EnvironmentNotFound,
            errors.ExecutionNotFound,
            errors.Forbidden,
            errors.ExecutionNotRunning,
            errors.EnvironmentElsewhere,
        ),
    )
    async def cancel_execution(
        caller: Caller, environment_id: EnvironmentPath, execution_id: ExecutionPath
    ) -> ExecutionAnswer:
        """Kill a running execution and everything that it started; answers its record."""
        row = await environments.get(caller, environment_id)
        return ExecutionAnswer.of(
            await environments.cancel_execution(caller, environment_id, execution_id), row.isolation
        )
