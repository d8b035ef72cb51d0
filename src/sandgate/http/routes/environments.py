"""Making, reading, changing and ending environments."""

from typing import Annotated

from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.base import Environments
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.environments import EnvironmentAnswer, EnvironmentDeletedAnswer, EnvironmentsAnswer
from sandgate.http.models.metrics import MetricsAnswer
from sandgate.http.models.requests import CreateEnvironment, ListEnvironments, UpdateEnvironment
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import EnvironmentPath
from sandgate.http.routes.life import add_life_routes

_ENVIRONMENTS = "/api/v1/sandbox/environments"
_ENVIRONMENT = f"{_ENVIRONMENTS}/{{environment_id}}"
_TAG = "environments"


def add_environment_routes(api: Api, environments: Environments) -> None:
    """Declare the operations."""
    _add_collection_routes(api, environments)
    _add_item_routes(api, environments)
    add_life_routes(api, environments)
    _add_changing_routes(api, environments)


def _add_collection_routes(api: Api, environments: Environments) -> None:
    @api.operation(
        "POST",
        _ENVIRONMENTS,
        tag=_TAG,
        status=201,
        audit=Audit.OFTEN,
        idempotent=True,
        errors=(
            errors.Forbidden,
            errors.UnknownTemplate,
            errors.TemplateUnavailable,
            errors.SnapshotNotFound,
            errors.SnapshotElsewhere,
            errors.SnapshotUnfit,
            errors.SnapshotUnreadable,
            errors.IsolationUnavailable,
            errors.LimitTooHigh,
            errors.NetworkNotOffered,
            errors.TooManyNetworkRules,
            errors.TooManyEnvironments,
            errors.TooManyLiveTemplates,
            errors.MemoryQuotaExceeded,
            errors.EnvironmentVariablesTooLarge,
            errors.SecretUnreadable,
            errors.VolumesUnavailable,
            errors.VolumeElsewhere,
            errors.VolumeNotFound,
            errors.ServiceDraining,
        ),
    )
    async def create_environment(caller: Caller, body: CreateEnvironment, request: Request) -> EnvironmentAnswer:
        """Make an environment.

        The answer leaves while it is being made; it may be used at once, what comes early waits.
        """
        keep = keeper(request, EnvironmentAnswer.of)
        return EnvironmentAnswer.of(await environments.create(caller, body.wanted(), keep))

    @api.operation("GET", _ENVIRONMENTS, tag=_TAG)
    async def list_environments(caller: Caller, query: Annotated[ListEnvironments, Query()]) -> EnvironmentsAnswer:
        """List your environments, newest first; an admin's list holds everybody's. By default only live ones."""
        page = await environments.list(
            caller,
            query.page_request("env"),
            statuses=query.statuses(),
            template=query.template,
            name=query.name,
            metadata=query.labels(),
        )
        return EnvironmentsAnswer(
            environments=[EnvironmentAnswer.of(row) for row in page.items], next_cursor=next_cursor(page)
        )


def _add_item_routes(api: Api, environments: Environments) -> None:
    @api.operation("GET", _ENVIRONMENT, tag=_TAG, errors=(errors.EnvironmentNotFound,))
    async def get_environment(caller: Caller, environment_id: EnvironmentPath) -> EnvironmentAnswer:
        """Get one environment, live or ended."""
        return EnvironmentAnswer.of(await environments.get(caller, environment_id))

    @api.operation(
        "GET",
        f"{_ENVIRONMENT}/metrics",
        tag=_TAG,
        errors=(
            errors.EnvironmentNotFound,
            errors.EnvironmentNotRunning,
            errors.EnvironmentElsewhere,
            errors.LauncherUnavailable,
        ),
    )
    async def get_environment_metrics(caller: Caller, environment_id: EnvironmentPath) -> MetricsAnswer:
        """What a live environment uses now, and has used at most, as the kernel counts it."""
        return MetricsAnswer.of(await environments.metrics(caller, environment_id))


def _add_changing_routes(api: Api, environments: Environments) -> None:
    @api.operation(
        "PATCH",
        _ENVIRONMENT,
        tag=_TAG,
        errors=(
            errors.EnvironmentNotFound,
            errors.Forbidden,
            errors.EnvironmentNotRunning,
            errors.EnvironmentElsewhere,
            errors.LauncherUnavailable,
            errors.NetworkNotOffered,
            errors.TooManyNetworkRules,
            errors.NetworkUnavailable,
            errors.PauseUnavailable,
        ),
    )
    async def update_environment(
        caller: Caller, environment_id: EnvironmentPath, body: UpdateEnvironment
    ) -> EnvironmentAnswer:
        """Change name, metadata, lifetime, network, or when it is paused.

        A new `timeout` or `idle_timeout` is counted anew from now.
        """
        return EnvironmentAnswer.of(await environments.update(caller, environment_id, body.change()))

    @api.operation(
        "DELETE",
        _ENVIRONMENT,
        tag=_TAG,
        errors=(
            errors.EnvironmentNotFound,
            errors.Forbidden,
            errors.EnvironmentElsewhere,
            errors.LauncherUnavailable,
        ),
    )
    async def delete_environment(caller: Caller, environment_id: EnvironmentPath) -> EnvironmentDeletedAnswer:
        """End an environment with all that runs in it; answers once nothing of it runs any more."""
        row = await environments.delete(caller, environment_id)
        return EnvironmentDeletedAnswer(environment_id=row.environment_id)
