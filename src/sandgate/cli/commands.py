"""The commands of ``sandgate``, each imported and made when it is asked for: all of them take longer than most run."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

# The name of each, in the order of the help, and where its function or its group is.
_PLACES = {
    "serve": "serve_command:serve",
    "doctor": "doctor:doctor",
    "config": "config_command:config",
    "migrate": "migrate_command:migrate",
    "version": "version_command:version",
    "login": "login_commands:login",
    "logout": "login_commands:logout",
    "whoami": "login_commands:whoami",
    "run": "environments.code_command:run",
    "terminal": "environments.terminal_command:terminal",
    "environment": "environments.app:app",
    "files": "environments.app:files",
    "session": "environments.app:sessions",
    "process": "environments.app:processes",
    "port": "environments.app:ports",
    "snapshot": "environments.app:snapshots",
    "volume": "environments.app:volumes",
    "workflow": "workflows.app:app",
    "secret": "secret_commands:app",
    "user": "user_commands:app",
    "template": "template_commands:app",
    "keys": "keys_command:app",
    "audit": "audit_commands:app",
}
# What comes behind the code is for the code.
_SETTINGS = {"run": {"allow_interspersed_args": False}}


class _Commands(Mapping[str, Any]):
    """By name, as Typer makes them; their type is none that others may use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __contains__(self, name: object) -> bool:
        return name in _PLACES

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, _, attribute = _PLACES[name].partition(":")
            try:
                self._made[name] = _make(name, getattr(import_module(f"sandgate.cli.{module}"), attribute))
            except KeyError as error:
                # It would say that there is no such command.
                raise RuntimeError(f"The command {name} cannot be made") from error
        return self._made[name]


def _make(name: str, found: Any) -> Any:
    alone = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name, context_settings=_SETTINGS.get(name))(found)
    return typer.main.get_group(alone).commands[name]


class LazyGroup(typer.core.TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - as Typer calls it
        """Their names, in the order of the help."""
        return list(self.commands)
