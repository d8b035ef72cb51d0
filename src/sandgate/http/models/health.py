"""What probes get to read."""

from typing import Literal

from sandgate.http.models.base import Model
from sandgate.http.models.parts import with_example


class HealthAnswer(Model):
    """The process answers."""

    model_config = with_example({"status": "ok"})

    status: Literal["ok"] = "ok"


class ReadyAnswer(Model):
    """Everything that work needs answers."""

    model_config = with_example({"status": "ready"})

    status: Literal["ready"] = "ready"
