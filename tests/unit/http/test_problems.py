"""Errors as answers."""

import json

import pytest

from sandgate.core import errors
from sandgate.core.errors import MechanismFault, RequestRefused, SandgateError
from sandgate.http.problems import STATUSES, render_problem, status_of


def _all_errors() -> set[type[SandgateError]]:
    """Every class of error that the vocabulary defines; those of other modules are special cases of them."""
    found: set[type[SandgateError]] = {SandgateError}
    todo: list[type[SandgateError]] = [SandgateError]
    while todo:
        kinds = [kind for kind in todo.pop().__subclasses__() if kind.__module__.startswith(errors.__name__)]
        found.update(kinds)
        todo += kinds
    return found


def test_the_table_is_total() -> None:
    """Every error class has its own row, and no row is left over."""
    assert set(STATUSES) == _all_errors()


def test_codes_are_stable_words() -> None:
    """Each code belongs to one class and is written in capitals."""
    codes = [kind.code for kind in STATUSES]
    assert len(codes) == len(set(codes))
    assert all(code == code.upper() and code.replace("_", "").isalnum() for code in codes)


@pytest.mark.parametrize("kind", STATUSES)
def test_refusals_are_the_callers_and_faults_the_services(kind: type[SandgateError]) -> None:
    """A refusal is 4xx, a broken mechanism 5xx."""
    status = status_of(kind)
    assert 400 <= status < 500 if issubclass(kind, RequestRefused) else 500 <= status < 600


def test_an_unlisted_class_takes_its_ancestors_status() -> None:
    """Nothing that is raised on purpose can miss the table."""

    class Odd(errors.EnvironmentNotFound):
        pass

    assert status_of(Odd) == 404


@pytest.mark.parametrize("kind", STATUSES)
def test_every_error_renders(kind: type[SandgateError]) -> None:
    """The body has the one form; 500 tells nothing of the inside."""
    # Some classes make their message from fields; how is their own affair.
    error = kind.__new__(kind)
    SandgateError.__init__(error, "the inside", {"secret": 1})
    if isinstance(error, errors.TooManyRequests):
        error.retry_after_s = 1.0
    answer = render_problem(error, "req-1")
    body = json.loads(answer.body)["error"]
    if answer.status == 500:
        assert body["code"] == "INTERNAL_ERROR"
        assert body["details"] == {"request_id": "req-1"}
        assert b"inside" not in answer.body
    else:
        assert body == {"code": kind.code, "message": "the inside", "details": {"secret": 1}}


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (errors.TooManyRequests("m", retry_after_s=2.1), (b"retry-after", b"3")),
        (errors.TooManyLoginAttempts("m", retry_after_s=0.2), (b"retry-after", b"1")),
        (errors.StoreUnavailable("m"), (b"retry-after", b"1")),
        (errors.NotAuthenticated("m"), (b"www-authenticate", b'Bearer realm="sandgate"')),
        (errors.MethodNotAllowed("m", {"allowed": ["GET", "HEAD"]}), (b"allow", b"GET, HEAD")),
    ],
)
def test_some_errors_say_what_to_do_in_a_header(error: SandgateError, header: tuple[bytes, bytes]) -> None:
    """Retry-After, WWW-Authenticate and Allow are there where HTTP wants them."""
    assert header in render_problem(error, "req-1").headers


def test_a_fault_is_not_a_refusal() -> None:
    """The two shapes do not overlap."""
    assert not [kind for kind in STATUSES if issubclass(kind, RequestRefused) and issubclass(kind, MechanismFault)]
