"""Walks along the chain of the audit log and says what is wrong with it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sandgate.core.audit import BEGINNING, AuditChain, AuditHead, AuditRow

#: More would not tell more.
MOST_PROBLEMS = 100


@dataclass(slots=True)
class ChainCheck:
    """Give it every row in the order of the numbers, then ``finish``; ``problems`` are sentences for people.

    ``expected`` is the end of the log at an earlier time, if somebody kept it: number, and digest in hexadecimal.

    ``head`` may be set anew until then, when rows are added meanwhile. After a row that is wrong it goes on with what
    that row says, so that one row that was changed is one problem.
    """

    chain: AuditChain
    head: AuditHead | None
    expected: tuple[int, str] | None = None
    problems: list[str] = field(default_factory=list)
    checked: int = 0
    began_at: int = 1
    _number: int = 0
    _digest: bytes = BEGINNING

    def __post_init__(self) -> None:
        if self.head is not None:
            self._number, self._digest = self.head.first_number - 1, bytes(self.head.anchor)
        self.began_at = self._number + 1

    def add(self, rows: Iterable[AuditRow]) -> None:
        """Check further rows."""
        for row in rows:
            self._check(row)

    def finish(self) -> None:
        """Compare the end with the record of it, and with the one that was expected."""
        number = 0 if self.head is None else self.head.number
        if self.head is not None and not self.chain.is_ours(self.head):
            self._tell("The record of where the log begins and ends was changed, or made with another key")
        if self._number < number:
            self._tell(_missing(self._number + 1, number))
        elif self.head is None and self.checked:
            self._tell("The record of where the log begins and ends is missing")
        elif self._number > number:
            self._tell(f"The rows after {number} are not in the record of where the log ends: they were put in")
        elif self.head is not None and self._digest != bytes(self.head.digest):
            self._tell(f"Row {number} is not the one that the record of where the log ends tells of")
        end = max(number, self._number)
        if self.expected is not None and self.expected[0] > end:
            self._tell(_missing(end + 1, self.expected[0]))

    def _check(self, row: AuditRow) -> None:
        self.checked += 1
        if row.number > self._number + 1:
            self._tell(_missing(self._number + 1, row.number - 1))
        elif row.number <= self._number:
            self._tell(f"Row {row.number} stands behind row {self._number}: it was put in")
        if self.chain.digest(self._digest, row.number, row.entry) != row.digest and row.number == self._number + 1:
            self._tell(
                f"Row {row.number} ({row.entry.audit_id}) was changed or put in, or does not follow the row before it"
            )
        if self.expected is not None and self.expected[0] == row.number and self.expected[1] != row.digest.hex():
            self._tell(f"Row {row.number} is not the one that was expected there: the log was written anew")
        self._number, self._digest = row.number, row.digest

    def _tell(self, problem: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


def _missing(first: int, last: int) -> str:
    return f"Row {first} is missing" if first == last else f"Rows {first} to {last} are missing"
