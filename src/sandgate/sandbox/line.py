"""What waits for a child, first come, first served; commands and sessions have places of their own."""

from collections import deque

from sandgate.core.errors import TooManyExecutions
from sandgate.sandbox.slot import Startable

LIMIT = 256


class Line:
    """Executions, commands and sessions that wait for a child."""

    def __init__(self) -> None:
        self._waiting: deque[Startable] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def check_room(self) -> None:
        """Raises ``TooManyExecutions``."""
        if len(self) >= LIMIT:
            # Those that were cancelled meanwhile wait for nothing.
            self._waiting = deque(each for each in self._waiting if not each.ended)
        if len(self) >= LIMIT:
            raise TooManyExecutions(
                f"{LIMIT} executions wait in this environment already; try again when some have ended.",
                {"limit": LIMIT},
            )

    def add(self, execution: Startable) -> None:
        """It comes last."""
        self._waiting.append(execution)

    def count_commands(self) -> int:
        """How many of them will stay beside what is executed."""
        return sum(each.is_command for each in self._waiting)

    def take(self, *, only_commands: bool = False) -> Startable | None:
        """The first that still wants a child."""
        if not only_commands:
            while self._waiting:
                execution = self._waiting.popleft()
                if not execution.ended:
                    return execution
            return None
        found = next((each for each in self._waiting if each.is_command and not each.ended), None)
        if found is not None:
            self._waiting.remove(found)
        return found

    def lose(self) -> None:
        """Nobody gets a child any more."""
        while self._waiting:
            self._waiting.popleft().on_lost()
