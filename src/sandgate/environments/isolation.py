"""Which class of walls a new environment gets."""

from sandgate.core.errors import IsolationUnavailable
from sandgate.core.states import Isolation
from sandgate.core.template import Template
from sandgate.environments.base import NewEnvironment
from sandgate.sandbox.base import Runtime


def choose_isolation(wanted: NewEnvironment, template: Template, runtime: Runtime) -> Isolation:
    """The class that was asked for, or the template's, or the server's. Raises ``IsolationUnavailable``."""
    chosen = wanted.isolation or template.isolation or runtime.isolation
    held = [isolation.value for isolation in runtime.isolations]
    if chosen.value not in held:
        raise IsolationUnavailable(
            f"This server holds environments of isolation class {' and '.join(held)}, not {chosen}; on its machine "
            "`sandgate doctor` says what the other classes need",
            {"isolation": chosen.value, "available": held},
        )
    return chosen
