"""``sandgate doctor``: what this machine can hold, what is missing, what brings it."""

from typing import TYPE_CHECKING

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.exits import EXIT_LACKING
from sandgate.cli.state import JsonOption, StateOption
from sandgate.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from sandgate.sandbox.probe import Ability, Machine


def doctor(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Say whether this machine can isolate code.

    Everything is tried, nothing is changed. The standard class puts up all walls, the gvisor class puts a kernel of its
    own behind them, the process class has none; the exit code is 3 when the standard class cannot be held.

    With --json: {"can_hold": {"standard": bool, "gvisor": bool, "process": bool}, "missing": {"standard": [names],
    "gvisor": [names], "process": [names]}, "abilities": [{"name", "ok", "found", "needed_for", "required_by":
    [classes], "mend"}]}.
    """
    from sandgate.config.paths import id_block, interpreter_folders
    from sandgate.sandbox.gvisor_probe import probe_gvisor
    from sandgate.sandbox.pools_probe import memory_of_machine, probe_pools
    from sandgate.sandbox.probe import Machine, probe
    from sandgate.sandbox.volume_probe import probe_volumes

    settings = state_folder.read(state=state)
    machine = probe(interpreter_folders(settings), host_id=id_block(settings))
    gvisor, volumes = probe_gvisor(settings.runsc, settings.gvisor_platform), probe_volumes(id_block(settings))
    pools = probe_pools(memory_of_machine(), settings.max_environments)
    machine = Machine((*machine.abilities, *gvisor, volumes, *pools))
    if as_json:
        print_json(_describe(machine))
    else:
        _print(machine)
    if not machine.can_hold_standard:
        raise typer.Exit(EXIT_LACKING)


def _describe(machine: "Machine") -> dict[str, object]:
    """The document of ``--json``."""
    from sandgate.core.states import Isolation

    return {
        "can_hold": {each.value: not machine.missing_for(each) for each in Isolation},
        "missing": {each.value: list(machine.missing_for(each)) for each in Isolation},
        "abilities": [
            {
                "name": ability.name,
                "ok": ability.ok,
                "found": ability.found,
                "needed_for": ability.needed_for,
                "required_by": sorted(ability.required_by),
                "mend": ability.mend,
            }
            for ability in machine.abilities
        ],
    }


def _print(machine: "Machine") -> None:
    """The table; below it what brings what is missing, and the verdict."""
    from sandgate.core.states import Isolation

    rows = [(_verdict(each), each.name, each.found, each.needed_for) for each in machine.abilities]
    print_table(("", "ability", "found", "needed for"), rows)
    typer.echo()
    for ability in machine.abilities:
        if ability.mend:
            typer.echo(f"To get {ability.name}: {ability.mend}")
    for isolation in Isolation:
        can_hold = not machine.missing_for(isolation)
        typer.echo(f"The {isolation} class {'can' if can_hold else 'cannot'} be held on this machine.")


def _verdict(ability: "Ability") -> str:
    """What is only better to have is no fault."""
    if ability.ok:
        return "ok"
    return "lacking" if ability.required_by else "absent"
