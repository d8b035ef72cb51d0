"""What people write for a workflow or a run, and what is meant by it."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.naming import find_own
from sandgate.cli.printable import one_line
from sandgate.core.errors import WorkflowNotFound

if TYPE_CHECKING:
    from sandgate.sdk.client import Client

WorkflowArgument = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="Id or name of the workflow.", show_default=False)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", show_default=False)]
FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="JSON or YAML; - is standard input.", show_default=False)
]

_WORKFLOW_ID = re.compile(r"workflow-[0-9a-z]{12,64}")
_RUN_ID = re.compile(r"run-[0-9a-z]{12,64}")


def is_run_id(text: str) -> bool:
    """Whether a text is the id of a run, as far as its form tells."""
    return _RUN_ID.fullmatch(text) is not None


def find_workflow_id(client: "Client", name: str) -> str:
    """The id that is meant: the text itself, or that of the caller's only workflow with this name.

    Raises ``WorkflowNotFound``, ``NameNotClear``, and what the client raises.
    """
    if _WORKFLOW_ID.fullmatch(name):
        return name
    shown = one_line(name, 128)
    rows = ((workflow.workflow_id, workflow.owner_id) for workflow in client.list_workflows(name=name))
    found = find_own(client, rows, f"workflows are called {shown}")
    if found is None:
        raise WorkflowNotFound(f"No workflow of yours is called {shown!r}; see: sandgate workflow list")
    return found
