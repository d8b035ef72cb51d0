"""Variables of environments for steps of workflows."""

from datetime import UTC, datetime

from sandgate.core.environment import Environment
from sandgate.core.execution import ExecutionRequest, StepData
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.limits import Limits
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.core.variables import Variables
from sandgate.environments.variables import give_step

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _row(variables: Variables) -> Environment:
    return Environment(
        EnvironmentId("env-1"), UserId("user-1"), "e", "python", Isolation.STANDARD, EnvironmentStatus.RUNNING, 60,
        _NOW, _NOW, Limits(), variables=variables,
    )  # fmt: skip


def test_a_step_finds_the_variables_but_no_secrets() -> None:
    """What it says itself is stronger; a request without data, and an environment without any, stay as they are."""
    row = _row(Variables({"A": "a", "B": "b"}, ("API_TOKEN",)))
    request = ExecutionRequest("pass", 1, StepData({}, {"B": "mine"}))
    given = give_step(row, request)
    assert given.data is not None
    assert given.data.env == {"A": "a", "B": "mine"}
    bare = ExecutionRequest("pass", 1)
    assert give_step(row, bare) is bare
    assert give_step(_row(Variables(secrets=("API_TOKEN",))), request) is request


def test_variables_are_kept_as_they_are() -> None:
    """Nothing as nothing; values are not shown where records are."""
    variables = Variables({"A": "a canary"}, ("B",))
    assert Variables.of_row(variables.to_row()) == variables
    assert Variables().to_row() is None
    assert Variables.of_row(None) == Variables()
    assert "canary" not in repr(_row(variables))
