"""What environments reach of the network."""

from sandgate.core import errors
from sandgate.environments.base import Networks
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.models.network import NetworkAnswer
from sandgate.http.paths import EnvironmentPath


def add_network_routes(api: Api, networks: Networks) -> None:
    """Declare the operations."""

    @api.operation(
        "GET",
        "/api/v1/sandbox/environments/{environment_id}/network",
        tag="network",
        errors=(
            errors.EnvironmentNotFound,
            errors.EnvironmentNotRunning,
            errors.EnvironmentElsewhere,
            errors.LauncherUnavailable,
            errors.NetworkUnavailable,
        ),
    )
    async def get_environment_network(caller: Caller, environment_id: EnvironmentPath) -> NetworkAnswer:
        """What a live environment may reach of the network, its newest connections, and what all came to."""
        return NetworkAnswer.of(environment_id, await networks.report(caller, environment_id))
