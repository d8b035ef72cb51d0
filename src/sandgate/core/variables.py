"""Environment variables that all code in an environment finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variables:
    """Variables with their values, and the names of the owner's secrets, whose values are no environment's to keep."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = ()

    def to_row(self) -> Mapping[str, Any] | None:
        """As it is kept; None is nothing."""
        return {"env": dict(self.env), "secrets": list(self.secrets)} if self.env or self.secrets else None

    @classmethod
    def of_row(cls, kept: Mapping[str, Any] | None) -> "Variables":
        """From what was kept."""
        return cls() if kept is None else cls(dict(kept["env"]), tuple(kept["secrets"]))

    def __bool__(self) -> bool:
        return bool(self.env or self.secrets)
