"""The settings table: name, type, unit, default, help and secrecy of everything that can be set.

Each setting is read once, at the start, from the environment variable ``SANDGATE_<NAME>`` (upper case) or from a
command-line flag that overrides it, and is frozen from then on. ``docs/configuration.md`` is generated from here.

To add a setting: add a field with ``setting`` to its group in ``sandgate.config.groups``; run
``scripts/check --write-docs``. To retire one: move its name to ``RETIRED`` with a sentence that says what to use
instead; a server that is given it refuses to start with that.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sandgate.config.groups.access import AccessSettings
from sandgate.config.groups.database import DatabaseSettings
from sandgate.config.groups.environments import EnvironmentSettings
from sandgate.config.groups.files import FileSettings
from sandgate.config.groups.keeping import KeepingSettings
from sandgate.config.groups.network import NetworkSettings
from sandgate.config.groups.processes import ProcessSettings
from sandgate.config.groups.requests import RequestSettings
from sandgate.config.groups.sandboxes import SandboxSettings
from sandgate.config.groups.serving import ServingSettings
from sandgate.config.groups.sessions import SessionSettings
from sandgate.config.groups.snapshots import SnapshotSettings
from sandgate.config.groups.streams import StreamSettings
from sandgate.config.groups.templates import TemplateSettings
from sandgate.config.groups.volumes import VolumeSettings
from sandgate.config.groups.workflows import WorkflowSettings
from sandgate.core.errors import ConfigurationError

PREFIX = "SANDGATE_"

RETIRED: Mapping[str, str] = {}

CLIENT_VARIABLES = frozenset({"SANDGATE_URL", "SANDGATE_API_KEY", "SANDGATE_TOKEN", "SANDGATE_PROFILE"})
"""What tells the commands that talk to a server which one, and who asks; no settings of a server."""


class Settings(
    SandboxSettings,
    TemplateSettings,
    NetworkSettings,
    KeepingSettings,
    StreamSettings,
    WorkflowSettings,
    SessionSettings,
    SnapshotSettings,
    FileSettings,
    ProcessSettings,
    VolumeSettings,
    EnvironmentSettings,
    RequestSettings,
    AccessSettings,
    DatabaseSettings,
    ServingSettings,
):
    """Everything that can be set; the fields of the last group come first."""


def read_settings(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """The table filled from ``environ`` and, stronger, from ``overrides`` (setting names, None: not given).

    Raises ``ConfigurationError`` that names every unknown, retired and ill-formed setting at once.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in RETIRED:
            problems.append(f"{variable} is no longer a setting: {RETIRED[name]}")
        elif name not in Settings.model_fields:
            problems.append(f"{variable} is not a setting; docs/configuration.md lists them all")
        else:
            values[name] = value
    values.update({name: value for name, value in (overrides or {}).items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [
            f"{PREFIX}{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("The settings are not valid: " + "; ".join(problems)) from None
    if problems:
        raise ConfigurationError("The settings are not valid: " + "; ".join(problems))
    return settings
