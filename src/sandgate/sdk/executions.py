"""The calls of a client about executions that were begun."""

from collections.abc import Generator

from sandgate.sdk.answers import Execution
from sandgate.sdk.calls import Calls
from sandgate.sdk.files import environment_path
from sandgate.sdk.reading import quote_part
from sandgate.sdk.transport import Asked


def _path(environment_id: str, execution_id: str) -> str:
    return f"{environment_path(environment_id)}/executions/{quote_part(execution_id)}"


class ExecutionCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about executions; it raises what that one does."""

    def list_executions(self, environment_id: str) -> Generator[Execution, None, None]:
        """Those of an environment, newest first, asked for page by page."""
        path = f"{environment_path(environment_id)}/executions"
        return self._list(Execution, path, "executions")

    def get_execution(self, environment_id: str, execution_id: str) -> Execution:
        """One of them, running or ended."""
        return self._get(Execution, Asked("GET", _path(environment_id, execution_id)))

    def cancel_execution(self, environment_id: str, execution_id: str) -> Execution:
        """End it; as it is then."""
        path = f"{_path(environment_id, execution_id)}/cancel"
        return self._get(Execution, Asked("POST", path))
