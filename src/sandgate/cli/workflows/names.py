"""What people write for a workflow or a run, and what is meant by it."""

import re
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.printable import one_line
from sandgate.core.errors import RequestRefused, WorkflowNotFound

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
_SHOWN = 5


class NameNotClear(RequestRefused):
    """Several workflows have this name."""

    code = "NAME_NOT_CLEAR"


def is_run_id(text: str) -> bool:
    """Whether a text is the id of a run, as far as its form tells."""
    return _RUN_ID.fullmatch(text) is not None


def find_workflow_id(client: "Client", name: str) -> str:
    """The id that is meant: the text itself, or that of the only workflow with this name.

    Raises ``WorkflowNotFound``, ``NameNotClear``, and what the client raises.
    """
    if _WORKFLOW_ID.fullmatch(name):
        return name
    found = [workflow.workflow_id for workflow in islice(client.list_workflows(name=name), _SHOWN + 1)]
    if not found:
        raise WorkflowNotFound(f"There is no workflow {one_line(name, 128)!r}; see: sandgate workflow list")
    if len(found) > 1:
        more = " and more" if len(found) > _SHOWN else ""
        ids = ", ".join(found[:_SHOWN])
        raise NameNotClear(f"Several workflows are called {one_line(name, 128)}; take the id of one: {ids}{more}")
    return found[0]
