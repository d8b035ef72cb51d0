"""The calls of a client about what environments reach of the network."""

from collections.abc import Sequence
from typing import Any

from sandgate.sdk.answers import Environment, Network
from sandgate.sdk.calls import Calls
from sandgate.sdk.files import environment_path
from sandgate.sdk.transport import Asked


class NetworkCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about the network; it raises what that one does."""

    def get_network(self, environment_id: str) -> Network:
        """What a live environment may reach, its newest connections, and what all came to."""
        return self._get(Network, Asked("GET", f"{environment_path(environment_id)}/network"))

    def set_network(self, environment_id: str, allow: Sequence[str] | None) -> Environment:
        """Let code reach these hosts and no others from now on; None: nothing."""
        body: dict[str, Any] = {"network": None if allow is None else {"allow": list(allow)}}
        return self._get(Environment, Asked("PATCH", environment_path(environment_id), body))
