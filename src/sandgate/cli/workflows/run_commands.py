"""``sandgate workflow start``, ``status``, ``logs`` and ``runs``."""

import sys
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.exits import WrongUsage
from sandgate.cli.state import JsonOption, LimitOption
from sandgate.cli.terminal import complain_once, print_record, print_records, print_table, show_time
from sandgate.cli.workflows.documents import read_document
from sandgate.cli.workflows.following import end_with, follow, left_running, wait_quietly
from sandgate.cli.workflows.given_inputs import read_inputs, split_inputs
from sandgate.cli.workflows.names import RunArgument, WorkflowArgument, find_workflow_id, is_run_id
from sandgate.core.run import RunStatus

if TYPE_CHECKING:
    from sandgate.sdk.answers import RunView
    from sandgate.sdk.client import Client


def start(
    name: WorkflowArgument,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=VALUE; JSON unless the input is a string.", metavar="NAME=VALUE"),
    ] = None,
    inputs_file: Annotated[
        str | None, typer.Option("--inputs", help="Inputs as JSON or YAML; - is standard input.", metavar="FILE")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the run.")] = False,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Show the steps until the run has ended.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a run, and print its id.

    With --wait or --follow the exit code is 6 when the run ends as anything but succeeded.

    With --json: the run; with its steps when it was waited for.
    """
    texts = split_inputs(given or [])
    from_file = _read_inputs_file(inputs_file)
    with connect(profile) as client:
        workflow_id = find_workflow_id(client, name)
        typed = read_inputs(texts, client.get_workflow(workflow_id).definition) if texts else {}
        run = client.start_workflow(workflow_id, from_file | typed)
        if not wait and not follow_it:
            print_record(run) if as_json else typer.echo(run.run_id)
            return
        ended = follow(client, run.run_id) if follow_it and not as_json else wait_quietly(client, run.run_id)
    if as_json:
        print_record(ended)
    elif not follow_it:
        _print_ending(ended)
    end_with(ended)


def status(
    name: Annotated[
        str,
        typer.Argument(metavar="RUN|WORKFLOW", help="Id of a run, or id or name of a workflow.", show_default=False),
    ],
    follow_it: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow", "-f/-F", help="Until the run has ended, or as it is now.", show_default=False
        ),
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far a run is, step by step.

    Of a workflow it is the newest run.

    On a terminal the steps are redrawn until the run has ended; otherwise they are printed once, unless --follow is
    given. Where it follows, the exit code is 6 when the run ends as anything but succeeded.

    With --json: the run with its steps; with --follow, once it has ended.
    """
    follows = not as_json and sys.stdout.isatty() if follow_it is None else follow_it
    with connect(profile) as client:
        run = _get_run(client, name)
        if not follows:
            print_record(run) if as_json else _print_steps(run)
            return
        ended = wait_quietly(client, run.run_id) if as_json else follow(client, run.run_id)
    if as_json:
        print_record(ended)
    end_with(ended)


def logs(
    run_id: RunArgument,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    step: Annotated[str | None, typer.Option("--step", "-s", help="Only this step.", show_default=False)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Send control characters to the terminal as they are.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Print what the code of a run has printed.

    Each line has its step in front, unless --step chooses one. What went to stderr goes to stderr. Control characters
    are written out on a terminal, because whoever wrote the code could otherwise repaint it; a file gets what there is.
    """
    from sandgate.cli.workflows.logs import LogPrinter
    from sandgate.cli.workflows.watching import Watch

    with connect(profile) as client:
        printer = LogPrinter(lambda name, item: client.get_run_step(run_id, name, item=item), step=step, raw=raw)
        if not follow_it:
            run = client.get_run(run_id)
            _check_step(run, step)
            printer.show(run)
            printer.close()
            return
        with left_running(run_id):
            try:
                watch = Watch(client, run_id, on_trouble=complain_once(), on_events=printer.show_events)
                for run in watch.views():
                    _check_step(run, step)
                    printer.show(run)
            finally:
                printer.close()
    end_with(run)


def list_runs(
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", help="Only of this workflow, by id or name.", show_default=False)
    ] = None,
    only: Annotated[RunStatus | None, typer.Option("--status", help="Only those that are so.")] = None,
    limit: LimitOption = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first.

    With --json: {"runs": [{"run_id", "workflow_id", "workflow_name", "status", …}]}.
    """
    from sandgate.cli.workflows.rows import elapsed

    with connect(profile) as client:
        workflow_id = None if workflow is None else find_workflow_id(client, workflow)
        runs = list(islice(client.list_runs(workflow_id=workflow_id, status=only), limit))
    if as_json:
        print_records("runs", runs)
        return
    now = datetime.now(UTC)
    rows = [
        (run.workflow_name, run.status, show_time(run.creation_time), elapsed(run, now), run.run_id) for run in runs
    ]
    print_table(("workflow", "status", "started", "took", "id"), rows)


def _read_inputs_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    document = read_document(path)
    if not isinstance(document.value, dict):
        raise WrongUsage(f"{document.name} has no inputs; it has to be an object with their names")
    return document.value


def _get_run(client: "Client", name: str) -> "RunView":
    if is_run_id(name):
        return client.get_run(name)
    return client.get_newest_run(find_workflow_id(client, name))


def _check_step(run: "RunView", step: str | None) -> None:
    """Raises ``WrongUsage`` for a step that the run does not have."""
    if step is not None and step not in [each.name for each in run.steps]:
        names = ", ".join(each.name for each in run.steps)
        raise WrongUsage(f"{run.run_id} has no step {step}; it has: {names}")


def _print_steps(run: "RunView") -> None:
    from sandgate.cli.workflows.rows import elapsed, ending, note, shown_status

    now = datetime.now(UTC)
    rows = [(step.name, shown_status(run, step), elapsed(step, now), note(run, step)) for step in run.steps]
    print_table(("step", "status", "took", ""), rows)
    typer.echo(ending(run, now))


def _print_ending(run: "RunView") -> None:
    from sandgate.cli.workflows.rows import ending

    typer.echo(ending(run, datetime.now(UTC)))
