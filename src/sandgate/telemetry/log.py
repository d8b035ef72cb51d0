"""Logs: one line an event, as text for people or as JSON for machines, each with the id of the request it belongs to.

Code of sandgate logs with ``get_logger(__name__).info("what happened", environment_id=…)``; what libraries write
through the standard ``logging`` goes the same way and looks the same.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import structlog

from sandgate.telemetry.secrets import mask_secrets

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]

#: Libraries that say more than an operator wants to read, and the lowest level that is let through of each.
_TALKATIVE = {
    "asyncio": logging.WARNING,
    "alembic": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "uvicorn.access": logging.WARNING,
}
#: Libraries that show, below this level, the values that they work with: code, output, hashes of passwords.
_INDISCREET = {"sqlalchemy": logging.WARNING}
#: Libraries that install handlers of their own.
_ROUTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose events carry ``name``; cheap, for the top of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def set_up_logging(level: Level, log_format: Format, stream: TextIO | None = None) -> None:
    """Send all events of at least ``level`` to ``stream`` (None: stderr). Calling it again replaces what was set."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    output = stream or sys.stderr
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                mask_secrets,
                *_make_renderer(log_format, output),
            ],
        )
    )
    _install(handler, level)


@contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Put ``request_id`` on every event of this task, and of those that it starts, until the end of the block."""
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        yield


def _install(handler: logging.Handler, level: Level) -> None:
    """Make the handler the only one, for sandgate and for the libraries."""
    logging.raiseExceptions = False  # A log that cannot be written must not become output of its own.
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name, lowest in _TALKATIVE.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else lowest)
    for name, lowest in _INDISCREET.items():
        logging.getLogger(name).setLevel(lowest)


def _make_renderer(log_format: Format, stream: TextIO) -> list[structlog.typing.Processor]:
    """What turns an event into a line; JSON escapes control characters by itself."""
    if log_format == "json":
        return [structlog.processors.JSONRenderer(default=str)]
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    return [_keep_on_one_line, console]


def _keep_on_one_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters, so that nobody whose input is logged can forge lines or colour a terminal.

    Tracebacks keep their line feeds and lose the rest.
    """
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(
                character
                if character.isprintable() or (name == "exception" and character in "\n\t")
                else character.encode("unicode_escape").decode()
                for character in value
            )
    return event
