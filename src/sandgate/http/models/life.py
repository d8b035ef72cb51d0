"""What clients say of the life of an environment."""

from typing import Annotated, Literal

from pydantic import Field

OnTimeoutWanted = Annotated[
    Literal["delete", "pause"], Field(description="What becomes of it at the end of its lifetime.")
]
IdleTimeout = Annotated[
    int, Field(ge=0, le=86_400, description="It is paused when nobody has used it for so many seconds. 0: never.")
]
