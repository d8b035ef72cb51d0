"""What the exit codes of commands mean. docs/cli.md says it to users."""

from sandgate.core.errors import (
    InvalidRequest,
    IsolationUnavailable,
    SandgateError,
    TemplateUnavailable,
)
from sandgate.sdk.errors import ApiError, ClientError, InvalidAddress

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_LACKING = 3
EXIT_NOT_LOGGED_IN = 4
EXIT_UNREACHABLE = 5
EXIT_RUN_FAILED = 6
EXIT_INTERRUPTED = 130

MEANINGS = {
    0: "done",
    EXIT_REFUSED: "refused, not valid or not found; the message says why",
    EXIT_USAGE: "the command line or a setting is wrong",
    EXIT_LACKING: "this machine lacks something",
    EXIT_NOT_LOGGED_IN: "not logged in, or the login is no longer valid",
    EXIT_UNREACHABLE: "the server cannot be reached, or cannot answer now",
    EXIT_RUN_FAILED: "the run that was waited for has ended, but not as succeeded",
    EXIT_INTERRUPTED: "ended by Ctrl-C; a run that was watched goes on, code of `sandgate run` does not",
}

_HIGHEST_EXIT_CODE = 255
_UNAUTHORIZED, _UNAVAILABLE = 401, 503


class InvalidSettings(SandgateError):
    """The environment variables or options are wrong: a mistake in how the command was called."""

    code = "CONFIGURATION_ERROR"


class WrongUsage(SandgateError):
    """The arguments do not go together, or name a file that cannot be read."""

    code = "WRONG_USAGE"


class MachineLacks(SandgateError):
    """Something that the command needs is not on this machine."""

    code = "MACHINE_LACKS"


class NotLoggedIn(SandgateError):
    """No server, or no credential for it, is known."""

    code = "NOT_LOGGED_IN"


def exit_code_of(error: SandgateError | ClientError) -> int:
    """The exit code that an error ends a command with."""
    if isinstance(error, ClientError):
        return _exit_code_of_client(error)
    if isinstance(error, MachineLacks | IsolationUnavailable | TemplateUnavailable):
        return EXIT_LACKING
    if isinstance(error, InvalidSettings | InvalidRequest | WrongUsage):
        return EXIT_USAGE
    return EXIT_NOT_LOGGED_IN if isinstance(error, NotLoggedIn) else EXIT_REFUSED


def exit_code_of_code(given: object) -> int:
    """The exit code of a command that ends as what it has run has ended; ``given`` is what the server says of that."""
    return given if isinstance(given, int) and 0 <= given <= _HIGHEST_EXIT_CODE else EXIT_REFUSED


def _exit_code_of_client(error: ClientError) -> int:
    if isinstance(error, InvalidAddress):
        return EXIT_USAGE
    if isinstance(error, ApiError) and error.status != _UNAVAILABLE:
        return EXIT_NOT_LOGGED_IN if error.status == _UNAUTHORIZED else EXIT_REFUSED
    return EXIT_UNREACHABLE
