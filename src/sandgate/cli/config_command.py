"""``sandgate config``: the settings that are in force here."""

from sandgate.cli import state as state_folder
from sandgate.cli.state import DatabaseOption, JsonOption, StateOption
from sandgate.cli.terminal import print_json, print_table


def config(state: StateOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Print the settings that are in force.

    Secrets are printed as ***.

    With --json: an object of values by the names of settings.
    """
    from sandgate.config.docs import rows, show_value

    settings = state_folder.read(state=state, database_url=database_url)
    values = {row.name: getattr(settings, row.name) for row in rows()}
    if as_json:
        plain = {name: value if isinstance(value, int | float) else show_value(value) for name, value in values.items()}
        print_json(plain)
        return
    table = [(row.variable, show_value(values[row.name]), row.unit, row.default, row.help_text) for row in rows()]
    print_table(("variable", "value", "unit", "default", "what it does"), table)
