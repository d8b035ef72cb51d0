"""What an attempt of a step is known by to whoever takes it up after the process that began it."""

from dataclasses import dataclass

from sandgate.core.ids import ExecutionId, RunId

_SIGN = "|"
_PARTS_OF_ATTEMPT = 4


@dataclass(frozen=True, slots=True)
class AttemptTag:
    """``attempt`` is of four parts; ``folder`` that of its files; ``execution_id`` where it has a record of its own."""

    attempt: str
    folder: str
    execution_id: ExecutionId | None = None

    @property
    def text(self) -> str:
        """It as one text."""
        parts = (
            (self.attempt, self.folder) if self.execution_id is None else (self.attempt, self.folder, self.execution_id)
        )
        return _SIGN.join(parts)


def parse_tag(text: str) -> AttemptTag:
    """The tag that this is the text of; parts that it does not have are empty."""
    parts = text.split(_SIGN)
    attempt, rest = parts[:_PARTS_OF_ATTEMPT], parts[_PARTS_OF_ATTEMPT:]
    folder = rest[0] if rest else ""
    return AttemptTag(_SIGN.join(attempt), folder, ExecutionId(rest[1]) if len(rest) > 1 else None)


def is_of_run(attempt: str, run_id: RunId) -> bool:
    """Whether an attempt is one of a run's."""
    return attempt.startswith(f"{run_id}{_SIGN}")
