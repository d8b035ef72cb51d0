"""What the answers are made of. Fields are only ever added, so that a client written today keeps working."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

Cursor = Annotated[str | None, Field(description="Send it as `cursor` for the next page; null at the end.")]


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 60.0 is an integer there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Comes last, because what comes later is checked first.
Whole = BeforeValidator(_whole)


def with_example(*examples: dict[str, Any]) -> ConfigDict:
    """The settings of a model with examples for the document."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})


def strict(*examples: dict[str, Any]) -> ConfigDict:
    """The settings of every model of a body, with examples for the document."""
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": list(examples)})
