"""What the answers are made of. Fields are only ever added, so that a client written today keeps working."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

Cursor = Annotated[str | None, Field(description="Send it as `cursor` for the next page; null at the end.")]


def with_example(example: dict[str, Any]) -> ConfigDict:
    """The settings of a model with an example for the document."""
    return ConfigDict(json_schema_extra={"examples": [example]})
