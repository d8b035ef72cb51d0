"""The commands about environments, as far as they need no server."""

import pytest

from tests.unit.cli.conftest import Command


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"], ["run", "/no/such/file"], ["run", "-e", "x", "--template", "python", "-c", "1"],
        ["run", "--session", "s", "-c", "1"], ["run", "--stdin", "-"], ["run", "--env", "A", "-c", "1"],
        ["run", "--file", "/no/such", "-c", "1"], ["environment", "update", "x"],
        ["environment", "create", "x", "--env", "A=1", "--env", "A=2"], ["terminal", "x"],
        ["run", "-e", "x", "--volume", "a:/b", "-c", "1"], ["run", "-e", "x", "--snapshot", "s", "-c", "1"],
        ["environment", "create", "x", "--volume", "data"], ["environment", "create", "x", "--volume", ":/data"],
        ["environment", "create", "x", "--volume", "data:in"], ["process", "start", "x"],
        ["process", "start", "-c", "ls", "x", "ls"], ["port", "ask", "x", "80", "-H", "word"],
        ["port", "ask", "x", "80", "--body", "/no/such"],
        ["files", "put", "x", "-"], ["files", "put", "x", "/no/such"], ["files", "get", "x", ".."],
    ],
)  # fmt: skip
def test_mistakes_in_the_call(sandgate: Command, arguments: list[str]) -> None:
    """Before anything is made."""
    answer = sandgate(*arguments)
    assert (answer.code, answer.out, answer.err.startswith("sandgate: ")) == (2, "", True)
