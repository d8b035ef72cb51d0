"""One row of the settings table."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Group(BaseModel):
    """A part of the table. Durations end in ``_s`` and are seconds; sizes end in ``_bytes``."""

    # Of all groups together one model is made in the end, and only that one checks anything.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def setting(default: Any, help_text: str, *, unit: str = "", **bounds: Any) -> Any:
    """A row of the table; ``bounds`` are pydantic's (ge, le, pattern, …)."""
    return Field(default=default, description=help_text, json_schema_extra={"unit": unit}, **bounds)
