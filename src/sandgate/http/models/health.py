"""What probes get to read."""

from typing import Literal

from pydantic import BaseModel

from sandgate.http.models.parts import with_example


class HealthAnswer(BaseModel):
    """The process answers."""

    model_config = with_example({"status": "ok"})

    status: Literal["ok"] = "ok"


class ReadyAnswer(BaseModel):
    """Everything that work needs answers."""

    model_config = with_example({"status": "ready"})

    status: Literal["ready"] = "ready"
