"""What readers of documents share: the walk through nested values that notes where each stands, and its bounds."""

from typing import Any

from sandgate.core.errors import RequestRefused
from sandgate.workflows.problems import below

MOST_LEVELS = 100
LONGEST_KEY = 1024
#: Pointers are written out for every value, so that long ones would cost the square of a document.
LONGEST_POINTER = 8192


class DocumentRefused(RequestRefused):
    """A document cannot be read as one; the message names the place."""

    code = "DOCUMENT_REFUSED"

    def __init__(self, message: str, name: str, line: int) -> None:
        super().__init__(message, {"file": name, "line": line})


class Place:
    """A list or an object that is being read, and where its next member stands."""

    def __init__(self, pointer: str, container: "list[Any] | dict[str, Any]") -> None:
        self.pointer = pointer
        self.container = container
        self.key: str | None = None

    def next_pointer(self) -> str:
        """The pointer of the member that comes next."""
        return below(self.pointer, len(self.container) if self.key is None else self.key)

    def add(self, value: Any) -> None:
        """Take in the member that came."""
        if isinstance(self.container, list):
            self.container.append(value)
        elif self.key is not None:
            self.container[self.key] = value
            self.key = None


class Positions:
    """The lines of all values, by their pointers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}
        self.places: list[Place] = []

    def note(self, line: int) -> str:
        """A value begins here; answers its pointer. Where a member has a key, the line is that of the key."""
        pointer = self.places[-1].next_pointer() if self.places else ""
        self.lines.setdefault(pointer, line)
        return pointer

    def enter(self, container: "list[Any] | dict[str, Any]", line: int) -> None:
        """A list or an object begins."""
        pointer = self.note(line)
        if len(self.places) >= MOST_LEVELS:
            raise self.refused(f"this is nested in more than {MOST_LEVELS} levels", line)
        if len(pointer) > LONGEST_POINTER:
            raise self.refused("the names that lead here are too long", line)
        self.places.append(Place(pointer, container))

    def set_key(self, key: str, line: int) -> None:
        """The next member has this key. Raises ``DocumentRefused`` for one that is there already."""
        place = self.places[-1]
        if len(key) > LONGEST_KEY:
            raise self.refused(f"this key has more than {LONGEST_KEY} characters", line)
        if key in place.container:
            first = self.lines[below(place.pointer, key)]
            raise self.refused(f"the key {key!r} is given twice; it is in line {first} already", line)
        place.key = key
        self.lines[place.next_pointer()] = line

    def refused(self, problem: str, line: int) -> DocumentRefused:
        """What to raise."""
        return DocumentRefused(f"{self.name}:{line}: {problem}", self.name, line)
