"""Showing a run until it ends: a screen on a terminal, lines anywhere else."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from sandgate.cli.exits import EXIT_INTERRUPTED, EXIT_RUN_FAILED
from sandgate.cli.terminal import complain, complain_once
from sandgate.core.run import RunStatus

if TYPE_CHECKING:
    from sandgate.sdk.answers import Run, RunView
    from sandgate.sdk.client import Client


def is_screen() -> bool:
    """Whether a view may redraw in place."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


@contextmanager
def left_running(run_id: str) -> Iterator[None]:
    """Ctrl-C ends the command, not the run; asks nothing, and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"{run_id} goes on; watch it with: sandgate workflow status {run_id}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def follow(client: "Client", run_id: str) -> "RunView":
    """Show a run until it has ended."""
    with left_running(run_id):
        return _on_screen(client, run_id) if is_screen() else _in_lines(client, run_id)


def wait_quietly(client: "Client", run_id: str) -> "RunView":
    """Wait for the end of a run and show nothing."""
    from sandgate.cli.workflows.watching import Watch

    with left_running(run_id):
        *_, last = Watch(client, run_id, on_trouble=complain_once()).views()
        return last


def end_with(run: "Run") -> None:
    """The exit code of a run that has ended."""
    if not run.is_live and run.status != RunStatus.SUCCEEDED:
        raise typer.Exit(EXIT_RUN_FAILED)


def _on_screen(client: "Client", run_id: str) -> "RunView":
    from rich.console import Console

    from sandgate.cli.workflows.live_view import opened_screen
    from sandgate.cli.workflows.watching import Watch

    with opened_screen(Console(highlight=False)) as screen:
        for view in Watch(client, run_id, on_trouble=screen.say).views():
            screen.show(view)
    return view


def _in_lines(client: "Client", run_id: str) -> "RunView":
    from sandgate.cli.workflows.plain_view import PlainLines
    from sandgate.cli.workflows.rows import ending
    from sandgate.cli.workflows.watching import Watch

    lines = PlainLines()
    for view in Watch(client, run_id, on_trouble=complain_once()).views():
        for line in lines.changes(view, datetime.now(UTC)):
            typer.echo(line)
        sys.stdout.flush()
    typer.echo(ending(view, datetime.now(UTC)))
    return view
