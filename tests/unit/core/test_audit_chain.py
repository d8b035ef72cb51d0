"""The chain of the audit log tells of every row that was removed, changed, moved or put in."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandgate.core.audit import BEGINNING, AuditChain, AuditEntry, AuditHead, AuditOutcome, AuditRow, Credential
from sandgate.core.audit_check import ChainCheck
from sandgate.core.ids import AuditId, UserId

CHAIN = AuditChain(b"k" * 32)
NOW = datetime(2026, 3, 1, 12, 30, 15, 123_457, tzinfo=UTC)
ENTRY = AuditEntry(
    audit_id=AuditId("audit-1"),
    at=NOW,
    action="create_user",
    outcome=AuditOutcome.DONE,
    credential=Credential.TOKEN,
    actor_id=UserId("user-1"),
    actor_name="ann",
    credential_id="tok-1",
    resource_id="user-2",
    status=201,
    code=None,
    address="192.0.2.1",
    request_id="req-1",
    details={"role": "user", "fields": ["password"]},
)
OTHER: dict[str, Any] = {
    "audit_id": "audit-x",
    "at": NOW + timedelta(microseconds=1),
    "outcome": AuditOutcome.REFUSED,
    "credential": Credential.API_KEY,
    "status": 200,
    "code": "X",
    "times": 2,
    "details": {"role": "admin", "fields": ["password"]},
}


def _log(count: int = 7) -> tuple[list[AuditRow], AuditHead]:
    entries = [replace(ENTRY, audit_id=AuditId(f"audit-{number}")) for number in range(1, count + 1)]
    rows = CHAIN.follow(BEGINNING, 0, entries)
    return rows, CHAIN.make_head(count, rows[-1].digest, 1, BEGINNING)


def _problems(rows: Sequence[AuditRow], head: AuditHead | None, expected: tuple[int, str] | None = None) -> list[str]:
    check = ChainCheck(CHAIN, head, expected)
    check.add(rows)
    check.finish()
    return check.problems


def test_an_untouched_log_is_right() -> None:
    """Also an empty one, one whose beginning is over, and one of which an earlier end was kept."""
    rows, head = _log()
    assert _problems(rows, head) == []
    assert _problems([], None) == []
    assert _problems(rows[3:], CHAIN.make_head(7, rows[-1].digest, 4, rows[2].digest)) == []
    assert _problems(rows, head, (5, rows[4].digest.hex())) == []


@pytest.mark.parametrize("name", [field.name for field in fields(AuditEntry)])
def test_a_change_of_any_field_is_told_by_its_row(name: str) -> None:
    """And only that row is named, because those after it follow what it says."""
    rows, head = _log()
    rows[2] = replace(rows[2], entry=replace(rows[2].entry, **{name: OTHER.get(name, "changed")}))
    (problem,) = _problems(rows, head)
    assert problem.startswith("Row 3 ")


TAMPERED: list[tuple[Callable[[list[AuditRow]], list[AuditRow]], str]] = [
    (lambda rows: [*rows[:2], *rows[3:]], "Row 3 is missing"),
    (lambda rows: [*rows[:2], *rows[5:]], "Rows 3 to 5 are missing"),
    (lambda rows: rows[1:], "Row 1 is missing"),
    (lambda rows: rows[:5], "Rows 6 to 7 are missing"),
    (lambda rows: [], "Rows 1 to 7 are missing"),
    (lambda rows: [*rows[:2], replace(rows[3], number=3), replace(rows[2], number=4), *rows[4:]], "Row 3 "),
    (lambda rows: [*rows[:2], *(replace(row, number=row.number - 1) for row in rows[3:])], "Row 3 "),
    (lambda rows: [*rows[:2], rows[2], rows[2], *rows[3:]], "Row 3 stands behind row 3"),
    (lambda rows: [*rows, replace(rows[-1], number=8)], "Row 8 "),
    (lambda rows: [replace(row, number=row.number + 1) for row in rows], "Row 1 is missing"),
]


@pytest.mark.parametrize(("tamper", "told"), TAMPERED, ids=[told for _, told in TAMPERED])
def test_what_was_done_to_the_rows_is_told(tamper: Callable[[list[AuditRow]], list[AuditRow]], told: str) -> None:
    """Removed, at the beginning, in between and at the end; swapped, closed up, doubled, put in."""
    rows, head = _log()
    problems = _problems(tamper(rows), head)
    assert any(problem.startswith(told) for problem in problems), problems


def test_a_row_that_was_computed_without_the_key_is_told() -> None:
    """Also when the whole log and its end were written anew."""
    forger = AuditChain(b"f" * 32)
    rows = forger.follow(BEGINNING, 0, [ENTRY, replace(ENTRY, action="nothing")])
    head = forger.make_head(2, rows[-1].digest, 1, BEGINNING)
    problems = _problems(rows, head)
    assert any(problem.startswith("Row 1 ") for problem in problems)
    assert any("changed, or made with another key" in problem for problem in problems)


def test_an_end_that_was_set_back_is_told_to_who_kept_it() -> None:
    """An old copy of the log with its own end looks right, but for whoever knows a later one."""
    rows, head = _log()
    older = CHAIN.make_head(4, rows[3].digest, 1, BEGINNING)
    assert _problems(rows[:4], older) == []
    assert _problems(rows[:4], older, (7, rows[6].digest.hex())) == ["Rows 5 to 7 are missing"]
    (problem,) = _problems(rows, head, (5, "0" * 64))
    assert problem.startswith("Row 5 is not the one that was expected")


@pytest.mark.parametrize("field", ["number", "digest", "first_number", "anchor"])
def test_a_changed_end_is_told(field: str) -> None:
    """Whatever of it was changed."""
    rows, head = _log()
    value: Any = b"x" * 32 if field in ("digest", "anchor") else getattr(head, field) + 1
    assert any("made with another key" in problem for problem in _problems(rows, replace(head, **{field: value})))


def test_an_end_that_has_gone_is_told() -> None:
    """The log cannot have begun without one."""
    rows, _ = _log()
    assert _problems(rows, None) == ["The record of where the log begins and ends is missing"]
