"""Lines of the log: who asked, nothing secret, nothing forged."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from sandgate.telemetry.log import Format, get_logger, request_context, set_up_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The set-up is for the whole process: put back what there was."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers, root.level, logging.raiseExceptions
    yield
    root.handlers, logging.raiseExceptions = handlers, raises
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    """Where the log goes."""
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    """What was logged so far as JSON."""
    set_up_logging("info", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def raise_it(text: str) -> None:
    """Something that goes wrong."""
    raise ValueError(text)


def test_an_event_is_one_json_object(lines: Lines) -> None:
    """With time, level, logger and what was given."""
    get_logger("sandgate.test").info("it happened", environment_id="env-1", count=3)
    (event,) = lines()
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "it happened",
        "level": "info",
        "logger": "sandgate.test",
        "environment_id": "env-1",
        "count": 3,
    }


def test_libraries_are_heard_the_same_way(lines: Lines) -> None:
    """uvicorn and others write through the standard logging."""
    logging.getLogger("uvicorn.error").warning("port %d is taken", 80)
    assert [(event["event"], event["logger"], event["level"]) for event in lines()] == [
        ("port 80 is taken", "uvicorn.error", "warning")
    ]


def test_handlers_of_libraries_are_replaced(lines: Lines) -> None:
    """A line is written once, and not in the library's own format as well."""
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(io.StringIO()))
    set_up_logging("info", "json", io.StringIO())
    assert logging.getLogger("uvicorn").handlers == []
    assert len(logging.getLogger().handlers) == 1


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_decides_what_is_heard(stream: io.StringIO, level: Any, heard: int) -> None:
    """Of our own events as of those of libraries."""
    set_up_logging(level, "json", stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(get_logger("sandgate.test"), name)("ours")
        getattr(logging.getLogger("some.library"), name)("theirs")
    assert stream.getvalue().count("ours") == stream.getvalue().count("theirs") == heard


@pytest.mark.parametrize(("level", "heard"), [("info", False), ("debug", True)])
def test_talkative_libraries_are_quieted(stream: io.StringIO, level: Any, heard: bool) -> None:
    """One line for each step of a library is for whoever asks for all there is."""
    set_up_logging(level, "json", stream)
    logging.getLogger("alembic.runtime").info("step one")
    assert ("step one" in stream.getvalue()) is heard


@pytest.mark.parametrize("level", ["info", "debug"])
def test_statements_are_never_shown(stream: io.StringIO, level: Any) -> None:
    """Their values are users' code, its output and hashes of passwords."""
    set_up_logging(level, "json", stream)
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT ...")
    logging.getLogger("sqlalchemy.engine.Engine").warning("it is slow")
    assert ("INSERT" in stream.getvalue(), "it is slow" in stream.getvalue()) == (False, True)


async def test_every_event_carries_its_request(lines: Lines) -> None:
    """Also those of libraries and of tasks that the request starts; not those of its neighbours."""

    async def inner() -> None:
        logging.getLogger("some.library").warning("inside")

    async def request(request_id: str) -> None:
        with request_context(request_id):
            await asyncio.create_task(inner())

    await asyncio.gather(request("r-1"), request("r-2"))
    get_logger("sandgate.test").info("outside")
    assert [event.get("request_id") for event in lines()] == ["r-1", "r-2", None]


SECRETS = {
    "password": "hunter2hunter2",
    "access_token": "opaque-token",
    "token": "opaque-token",
    "admin_password": "hunter2hunter2",
    "Authorization": "Bearer opaque-token",
    "client_secret": "hunter2hunter2",
    "code": "print('hunter2hunter2')",
    "Set-Cookie": "opaque-token",
    "password_hash": "hunter2hunter2",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_values_of_secret_names_are_masked(stream: io.StringIO, log_format: Format, name: str) -> None:
    """At the top and inside of whatever is logged."""
    set_up_logging("info", log_format, stream)
    nested = {"headers": [{name: SECRETS[name]}], "pair": ({name: SECRETS[name]},)}
    get_logger("sandgate.test").info("it happened", **{name: SECRETS[name]}, nested=nested)
    assert "***" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "opaque" not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer SECRET",
        "bearer SECRET",
        "Basic SECRET",
        "sgk_01abcdefgh_5EC4E7SECRET",
        "eyJhbGciOiJI.eyJzdWIiOiJ1.SECRET",
        "postgresql://user:SECRET@127.0.0.1/db",
        "$argon2id$v=19$m=65536,t=3,p=1$c2FsdA$SECRET",
    ],
)
def test_what_looks_like_a_secret_is_masked(lines: Lines, stream: io.StringIO, text: str) -> None:
    """In the event, in values, in a library's arguments and in a traceback."""
    logger = get_logger("sandgate.test")
    logger.info(f"first {text} end", value=[text])
    logging.getLogger("some.library").warning("second %s end", text)
    try:
        raise_it(text)
    except ValueError:
        logger.exception("third")
    assert "SECRET" not in stream.getvalue()
    assert [event["event"].split()[0] for event in lines()] == ["first", "second", "third"]


def test_ids_and_codes_of_errors_are_no_secrets(lines: Lines) -> None:
    """What is needed to find something again stays readable."""
    wanted = {"token_id": "tok-1", "error_code": "NOT_FOUND", "exit_code": 3, "kid": "key-1", "status_code": 404}
    get_logger("sandgate.test").info("it happened", **wanted)
    assert lines()[0].items() >= wanted.items()


def test_bytes_are_counted_and_not_shown(lines: Lines) -> None:
    """Output and code of users arrive as bytes."""
    get_logger("sandgate.test").info("it happened", data=b"anything", deep=[[b"x"]])
    assert (lines()[0]["data"], lines()[0]["deep"]) == ("<8 bytes>", [["<1 bytes>"]])


def test_what_is_deep_is_cut(lines: Lines) -> None:
    """A structure that nests for ever neither fails nor hides a secret."""
    loop: dict[str, Any] = {"token": "SECRET"}
    loop["again"] = loop
    get_logger("sandgate.test").info("it happened", loop=loop)
    assert "SECRET" not in json.dumps(lines())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nobody_can_forge_a_line(stream: io.StringIO, log_format: Format) -> None:
    """Line feeds and terminal codes in what users send are escaped."""
    set_up_logging("info", log_format, stream)
    evil = "x\n2026-01-01 [error] forged\r\x1b[31m\u2028\x9b\ud800"
    get_logger("sandgate.test").info(evil, value=evil)
    logging.getLogger("some.library").warning("%s", evil)
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert not {"\r", "\x1b", "\u2028", "\x9b", "\ud800"} & set(written)


def test_a_traceback_is_readable(stream: io.StringIO) -> None:
    """On a console it keeps its lines."""
    set_up_logging("info", "console", stream)
    try:
        raise_it("it broke\x1b[31m")
    except ValueError:
        get_logger("sandgate.test").exception("caught")
    assert "Traceback (most recent call last):\n  File " in stream.getvalue()
    assert "ValueError: it broke\\x1b[31m" in stream.getvalue()


def test_warnings_are_events(lines: Lines) -> None:
    """They are not printed between the lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("this is old", stacklevel=1)
    assert "this is old" in lines()[0]["event"]


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    """The reader of the log has gone."""
    closed = io.StringIO()
    set_up_logging("info", "json", closed)
    closed.close()
    get_logger("sandgate.test").info("into the void")


def test_a_process_logs_to_stderr() -> None:
    """Standard output belongs to what commands answer."""
    program = (
        "from sandgate.telemetry.log import get_logger, set_up_logging\n"
        "set_up_logging('info', 'json')\n"
        "get_logger('sandgate.test').info('here')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, json.loads(done.stderr)["event"]) == ("", "here")
