"""Reads the members of an object, each of its type and within its bounds, and notes everything that is not right."""

import re
from collections.abc import Collection, Mapping, Sequence

from sandgate.core.workflow import Json
from sandgate.workflows.expressions import kind
from sandgate.workflows.problems import Problems, below
from sandgate.workflows.suggestions import shown, suggest


class Fields:
    """The members of ``raw``, whatever that is. What is absent or wrong reads as None; what is wrong is a problem.

    ``elsewhere`` says of keys that belong to another place what to do with them.
    """

    def __init__(
        self,
        raw: Json,
        pointer: str,
        problems: Problems,
        known: Sequence[str],
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.pointer = pointer
        self.problems = problems
        self._raw: Mapping[str, Json] = raw if isinstance(raw, dict) else {}
        if not isinstance(raw, dict):
            problems.add(pointer, f"has to be an object, not {kind(raw)}")
        for key in self._raw:
            if key not in known:
                hint = (elsewhere or {}).get(key) or suggest(key, known)
                problems.add(self.at(key), f"There is no key {shown(key)} here; {hint or 'nothing is known here'}")

    def __contains__(self, key: str) -> bool:
        return key in self._raw

    def at(self, key: str) -> str:
        """The pointer of a member."""
        return below(self.pointer, key)

    def refuse(self, key: str, problem: str) -> None:
        """Note a problem of a member."""
        self.problems.add(self.at(key), problem)

    def raw(self, key: str) -> Json:
        """The member as it is; None when it is absent."""
        return self._raw.get(key)

    def require(self, *keys: str) -> None:
        """Note which of these are absent."""
        for key in keys:
            if key not in self._raw:
                self.problems.add(self.pointer, f"`{key}` is required")

    def text(self, key: str, most: int, *, least: int = 0) -> str | None:
        """A text of ``least`` to ``most`` characters."""
        value = self._raw.get(key)
        if key not in self._raw:
            return None
        if not isinstance(value, str):
            self.refuse(key, f"has to be a text, not {kind(value)}")
        elif not least <= len(value) <= most:
            self.refuse(key, f"has to have {least} to {most} characters, not {len(value)}")
        else:
            return value
        return None

    def name(self, key: str, pattern: str, rule: str) -> str | None:
        """A text that fits a pattern as a whole; ``rule`` says the pattern in words."""
        value = self._raw.get(key)
        if key not in self._raw:
            return None
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        self.refuse(key, f"has to be {rule}")
        return None

    def choice(self, key: str, allowed: Collection[str]) -> str | None:
        """One of some texts."""
        value = self._raw.get(key)
        if key not in self._raw or (isinstance(value, str) and value in allowed):
            return value
        hint = suggest(value, allowed) if isinstance(value, str) else ""
        listed = ", ".join(map(shown, allowed))
        self.refuse(key, f"has to be one of {listed}" + (f"; {hint}" if hint.startswith("did") else ""))
        return None

    def number(self, key: str, least: float, most: float) -> float | None:
        """A number from ``least`` to ``most``."""
        value = self._raw.get(key)
        if key not in self._raw:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.refuse(key, f"has to be a number from {least:,} to {most:,}")
            return None
        return float(value)

    def whole(self, key: str, least: int, most: int) -> int | None:
        """A whole number from ``least`` to ``most``; 3.0 is one."""
        value = self._raw.get(key)
        if key not in self._raw:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and is_number and least <= value <= most and value == int(value):
            return int(value)
        self.refuse(key, f"has to be a whole number from {least:,} to {most:,}")
        return None

    def boolean(self, key: str) -> bool | None:
        """true or false."""
        value = self._raw.get(key)
        if key not in self._raw or isinstance(value, bool):
            return value
        self.refuse(key, f"has to be true or false, not {kind(value)}")
        return None

    def mapping(self, key: str, most: int) -> Mapping[str, Json]:
        """An object of at most ``most`` members; empty when it is absent or wrong."""
        value = self._raw.get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, f"has to be an object, not {kind(value)}")
        elif len(value) > most:
            self.refuse(key, f"has to have at most {most} members, not {len(value)}")
        else:
            return value
        return {}

    def items(self, key: str, most: int) -> Sequence[Json]:
        """A list of at most ``most`` elements; empty when it is absent or wrong."""
        value = self._raw.get(key, [])
        if not isinstance(value, list):
            self.refuse(key, f"has to be a list, not {kind(value)}")
        elif len(value) > most:
            self.refuse(key, f"has to have at most {most} elements, not {len(value)}")
        else:
            return value
        return ()
