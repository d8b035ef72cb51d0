"""The settings table as a page of the documentation, and as rows for the command line."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from sandgate.config.settings import PREFIX, RETIRED, Settings

MASK = "***"

_HEAD = """\
# Configuration

<!-- Generated from src/sandgate/config/groups by scripts/check --write-docs; changes by hand are lost. -->

Each setting is read once, when the server starts, from its environment variable; those that `sandgate serve --help`
lists have a flag that overrides it. A variable that begins with `SANDGATE_` and is no setting, or a value out of range,
keeps the server from starting, with a message that names all that is wrong; only the four variables of
[the client commands](cli.md#which-server) are passed over. `sandgate config` prints what is in force, secrets as `***`.

| setting | variable | type | unit | default | range | what it does |
| --- | --- | --- | --- | --- | --- | --- |
"""
_OF_SERVER = "on this server"
_OF_SERVER_HEAD = """
## Several servers

Where several servers [share a database](operations.md#postgresql), what is kept, and what one user may have of
environments and their memory, volumes, snapshots, templates and builds of them, workflows, triggers and secrets, is
counted on all of them together, and so are executions of a day. Each server counts these for itself, so that on three
servers there may be three times as much:

"""
_RETIRED_HEAD = """
## Retired settings

A server that is given one of these does not start, and says what to use instead.

| variable | instead |
| --- | --- |
"""
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "text", SecretStr: "secret"}


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as it is shown; ``default`` and ``bounds`` are empty where there are none."""

    name: str
    variable: str
    type_name: str
    unit: str
    default: str
    bounds: str
    help_text: str

    @property
    def is_of_server(self) -> bool:
        """Whether each of the servers that share a database counts what it bounds for itself."""
        return _OF_SERVER in self.help_text


def rows() -> Iterator[SettingRow]:
    """Every setting, in the order of the table."""
    for name, info in Settings.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        yield SettingRow(
            name=name,
            variable=PREFIX + name.upper(),
            type_name=_name_type(info.annotation),
            unit=str(extra.get("unit", "")),
            default=str(extra.get("default_text", "")) or _show_default(info),
            bounds=", ".join(_show_bounds(info)),
            help_text=info.description or "",
        )


def show_value(value: object) -> str:
    """A setting's value as it may be shown: a secret that is set becomes ``***``, one that is not set is empty."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def render() -> str:
    """The whole of docs/configuration.md."""
    page = _HEAD + "".join(map(_render_row, rows()))
    page += _OF_SERVER_HEAD
    page += "".join(f"- `{row.name}`\n" for row in rows() if row.is_of_server)
    if RETIRED:
        page += _RETIRED_HEAD
        page += "".join(f"| `{PREFIX}{name.upper()}` | {_escape(text)} |\n" for name, text in RETIRED.items())
    return page


def _render_row(row: SettingRow) -> str:
    default = f"`{row.default}`" if row.default and " " not in row.default else row.default
    cells = (
        f"`{row.name}`",
        f"`{row.variable}`",
        row.type_name,
        row.unit,
        _escape(default),
        _escape(row.bounds),
        _escape(row.help_text),
    )
    return "| " + " | ".join(cells) + " |\n"


def _escape(text: str) -> str:
    """Text as a cell of a table."""
    return text.replace("|", r"\|").replace("\n", " ")


def _name_type(annotation: Any) -> str:
    """What a person calls the type."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        # One that may be left open is shown as what it is when it is not.
        return " or ".join(_name_type(each) for each in get_args(annotation) if each is not NoneType)
    return _TYPES.get(annotation, str(getattr(annotation, "__name__", annotation)).lower())


def _show_default(info: FieldInfo) -> str:
    """The default; none is shown of a secret, and none that depends on the machine."""
    if info.default_factory is not None or info.is_required():
        return ""
    return show_value(info.default)


def _show_bounds(info: FieldInfo) -> Iterator[str]:
    for item in info.metadata:
        for bound, sign in _BOUNDS.items():
            value = getattr(item, bound, None)
            if value is not None:
                yield f"{sign} {value}"
        pattern = getattr(item, "pattern", None)
        if pattern is not None:
            yield f"matches `{pattern}`"
