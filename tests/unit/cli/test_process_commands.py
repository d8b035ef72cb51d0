"""The commands about processes, as far as they need no server."""

from typing import Any, NoReturn, cast

import pytest

from sandgate.cli.environments import process_commands
from sandgate.sdk.client import Client
from sandgate.sdk.errors import ApiError


class _Refusing:
    """A server whose process takes nothing more."""

    def __init__(self, code: str) -> None:
        self.code = code

    def write_input(self, *_arguments: Any, **_more: Any) -> NoReturn:
        """Refuse it."""
        raise ApiError(409, self.code, "no")


@pytest.mark.parametrize(
    ("code", "has_given", "passes"),
    [("PROCESS_NOT_RUNNING", True, True), ("PROCESS_NOT_RUNNING", False, False), ("PROCESS_STUCK", True, False)],
)
def test_a_process_that_has_had_enough_may_be_gone(code: str, has_given: bool, passes: bool) -> None:
    """Before it is told that there is no more; but one that took nothing was gone before."""
    end, client = process_commands._end_input, cast(Client, _Refusing(code))
    if passes:
        end(client, "env", "proc", has_given=has_given)
        return
    with pytest.raises(ApiError):
        end(client, "env", "proc", has_given=has_given)
