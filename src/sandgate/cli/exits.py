"""What the exit codes of commands mean."""

from sandgate.core.errors import (
    InvalidRequest,
    IsolationUnavailable,
    SandgateError,
    TemplateUnavailable,
)

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_LACKING = 3
EXIT_INTERRUPTED = 130


class InvalidSettings(SandgateError):
    """The environment variables or options are wrong: a mistake in how the command was called."""

    code = "CONFIGURATION_ERROR"


class MachineLacks(SandgateError):
    """Something that the command needs is not on this machine."""

    code = "MACHINE_LACKS"


def exit_code_of(error: SandgateError) -> int:
    """The exit code that an error ends a command with."""
    if isinstance(error, MachineLacks | IsolationUnavailable | TemplateUnavailable):
        return EXIT_LACKING
    if isinstance(error, InvalidSettings | InvalidRequest):
        return EXIT_USAGE
    return EXIT_REFUSED
