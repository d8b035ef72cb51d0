"""``sandgate workflow validate``, ``create``, ``update``, ``get``, ``delete`` and ``list``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.exits import EXIT_REFUSED
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption, LimitOption
from sandgate.cli.terminal import print_json, print_record, print_records, print_table, show_time
from sandgate.cli.workflows.documents import Document, read_definition
from sandgate.cli.workflows.names import FileArgument, WorkflowArgument, find_workflow_id
from sandgate.cli.workflows.problems import INVALID, definition_refused, list_problems
from sandgate.sdk.errors import ApiError

if TYPE_CHECKING:
    from sandgate.sdk.answers import Plan, Workflow


def validate(file: FileArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Say what a definition would do, or what is wrong with it.

    Makes nothing.

    With --json: {"valid": true, "plan": {…}}, or {"valid": false, "problems": [{"line", "pointer", "problem"}]}.
    """
    document = read_definition(file)
    with connect(profile) as client:
        try:
            plan = client.validate_workflow(document.value)
        except ApiError as error:
            if error.code != INVALID:
                raise
            if not as_json:
                raise definition_refused(document, error) from error
            print_json({"valid": False, "problems": list_problems(document, error)})
            raise typer.Exit(EXIT_REFUSED) from error
    if as_json:
        print_json({"valid": True, "plan": plan.model_dump(mode="json", by_alias=True)})
    else:
        _print_plan(document, plan)


def create(file: FileArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Make a workflow of a definition.

    With --json: the workflow.
    """
    document = read_definition(file)
    with connect(profile) as client, _with_lines(document):
        workflow = client.create_workflow(document.value)
    _show(workflow, "was made", as_json)


def update(
    name: WorkflowArgument, file: FileArgument, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Make the next version of a workflow.

    Runs go on with the version that they were started with.

    With --json: the workflow.
    """
    document = read_definition(file)
    with connect(profile) as client, _with_lines(document):
        workflow = client.replace_workflow(find_workflow_id(client, name), document.value)
    _show(workflow, f"has the version {workflow.version}", as_json)


def get(name: WorkflowArgument, profile: ProfileOption = None) -> None:
    """Print a workflow, with its definition as it was sent, as JSON."""
    with connect(profile) as client:
        print_record(client.get_workflow(find_workflow_id(client, name)))


def delete(
    name: WorkflowArgument,
    force: Annotated[bool, typer.Option("--force", help="Cancel its runs first.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Delete a workflow.

    One whose runs are not over is kept, unless --force cancels them.
    """
    with connect(profile) as client:
        workflow_id = find_workflow_id(client, name)
        client.delete_workflow(workflow_id, force=force)
    typer.echo(f"{workflow_id} was deleted.")


def list_workflows(
    name: Annotated[str | None, typer.Option("--name", help="Only those with this name.", show_default=False)] = None,
    limit: LimitOption = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List workflows, newest first.

    With --json: {"workflows": [{"workflow_id", "name", "version", "creation_time", "updated_at", "definition"}]}.
    """
    with connect(profile) as client:
        workflows = list(islice(client.list_workflows(name=name), limit))
    if as_json:
        print_records("workflows", workflows)
        return
    rows = [(each.name, str(each.version), show_time(each.updated_at), each.workflow_id) for each in workflows]
    print_table(("name", "version", "changed", "id"), rows)


@contextmanager
def _with_lines(document: Document) -> Iterator[None]:
    """Problems of a definition become lines of the file that it is in."""
    try:
        yield
    except ApiError as error:
        if error.code == INVALID:
            raise definition_refused(document, error) from error
        raise


def _print_plan(document: Document, plan: "Plan") -> None:
    typer.echo(f"{document.name} is a valid workflow. What stands in one line may run side by side:")
    for number, names in enumerate(plan.levels, 1):
        typer.echo(f"  {number}. {_join(names)}")
    for when, steps in (("after a failure", plan.on_error), ("at the end", plan.final)):
        if steps:
            typer.echo(f"  {when}: {_join([step.name for step in steps])}")


def _join(names: Sequence[str]) -> str:
    return ", ".join(one_line(name, 63) for name in names)


def _show(workflow: "Workflow", done: str, as_json: bool) -> None:
    if as_json:
        print_record(workflow)
    else:
        typer.echo(f"{one_line(workflow.name, 128)} {done}: {workflow.workflow_id}")
