"""``sandgate workflow approve``, ``reject``, ``cancel`` and ``retry``."""

from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.terminal import print_record
from sandgate.cli.workflows.names import RunArgument
from sandgate.core.errors import StepNotWaiting

if TYPE_CHECKING:
    from sandgate.sdk.answers import Run
    from sandgate.sdk.client import Client

StepArgument = Annotated[
    str | None,
    typer.Argument(metavar="STEP", help="The step; may be left out when only one waits.", show_default=False),
]
ItemOption = Annotated[
    int | None,
    typer.Option("--item", min=0, help="Index of the item, where each is decided by itself.", show_default=False),
]
CommentOption = Annotated[str, typer.Option("--comment", "-m", help="A word with the decision.", show_default=False)]


def approve(
    run_id: RunArgument,
    step: StepArgument = None,
    comment: CommentOption = "",
    item: ItemOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a run go on that waits for an approval."""
    with connect(profile) as client:
        name = step or _find_waiting(client, run_id)
        _show(client.approve_step(run_id, name, comment, item=item), f"{name} was approved", as_json)


def reject(
    run_id: RunArgument,
    step: StepArgument = None,
    comment: CommentOption = "",
    item: ItemOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse an approval: the step fails."""
    with connect(profile) as client:
        name = step or _find_waiting(client, run_id)
        _show(client.reject_step(run_id, name, comment, item=item), f"{name} was rejected", as_json)


def cancel(run_id: RunArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Kill what runs of a run, and answer once it has ended."""
    with connect(profile) as client:
        _show(client.cancel_run(run_id), None, as_json)


def retry(run_id: RunArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Run again what has failed of a run.

    What had succeeded is not run again: its outputs are as they were.
    """
    with connect(profile) as client:
        _show(client.retry_run(run_id), None, as_json)


def _find_waiting(client: "Client", run_id: str) -> str:
    """The step that is meant when none is named. Raises ``StepNotWaiting``, ``WrongUsage``."""
    from sandgate.cli.workflows.rows import waiting_steps

    waiting = [step.name for step in waiting_steps(client.get_run(run_id))]
    if not waiting:
        raise StepNotWaiting(f"No step of {run_id} waits for an approval")
    if len(waiting) > 1:
        raise WrongUsage(f"Several steps of {run_id} wait for an approval; name one: {', '.join(waiting)}")
    return waiting[0]


def _show(run: "Run", done: str | None, as_json: bool) -> None:
    """The run as it is now, after what was done to a step of it."""
    if as_json:
        print_record(run)
        return
    before = "" if done is None else f"{one_line(done)}; "
    typer.echo(f"{before}{run.run_id} is {one_line(run.status)}.")
