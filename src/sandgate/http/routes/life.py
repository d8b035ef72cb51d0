"""Pausing environments and letting them go on."""

from sandgate.core import errors
from sandgate.environments.base import Environments
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.models.environments import EnvironmentAnswer
from sandgate.http.paths import EnvironmentPath

_ENVIRONMENT = "/api/v1/sandbox/environments/{environment_id}"
_TAG = "environments"
_REFUSALS = (
    errors.EnvironmentNotFound,
    errors.Forbidden,
    errors.EnvironmentNotRunning,
    errors.EnvironmentElsewhere,
    errors.LauncherUnavailable,
)


def add_life_routes(api: Api, environments: Environments) -> None:
    """Declare the operations."""

    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/pause",
        tag=_TAG,
        audit=Audit.CHANGE,
        errors=(*_REFUSALS, errors.PauseUnavailable),
    )
    async def pause_environment(caller: Caller, environment_id: EnvironmentPath) -> EnvironmentAnswer:
        """Let an environment stand still, with all that runs in it.

        Its lifetime and the time limits of executions stand still, too. Whatever uses it next resumes it.
        """
        return EnvironmentAnswer.of(await environments.pause(caller, environment_id))

    @api.operation("POST", f"{_ENVIRONMENT}/resume", tag=_TAG, audit=Audit.CHANGE, errors=_REFUSALS)
    async def resume_environment(caller: Caller, environment_id: EnvironmentPath) -> EnvironmentAnswer:
        """Let an environment that is paused go on. One that runs stays as it is."""
        return EnvironmentAnswer.of(await environments.resume(caller, environment_id))
