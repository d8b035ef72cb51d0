"""docs/cli.md, made of the commands themselves, so that it says what they do."""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from sandgate.cli.exits import MEANINGS
from sandgate.cli.main import make_app

_HEAD = """\
# The command line

<!-- Generated from src/sandgate/cli by scripts/check --write-docs; changes by hand are lost. -->

`scripts/install` leaves the command at `.venv/bin/sandgate`. Some of its commands run a server or work on its state
folder: they need no login, but the rights of whoever runs the server. The others (`login`, `logout`, `whoami`, `run`,
`terminal`, `environment`, `files`, `session`, `process`, `port`, `snapshot`, `volume`, `workflow`, `secret`, and
`template` but for `interpreters` and `install`) talk to a server over its API, from any machine.

## A first run

```sh
sandgate login http://127.0.0.1:8080 --username admin
sandgate workflow validate examples/fan-out.yaml
sandgate workflow create examples/fan-out.yaml
sandgate workflow start fan-out --input unit=F --follow
sandgate workflow logs RUN --follow
```

`login` asks for the password, exchanges it for an API key that ends after 90 days, and keeps that key; the password is
kept nowhere. On a terminal, `--follow` and `status` redraw the steps in place until the run has ended; in a pipe they
print a line for each change. Ctrl-C ends the watching, never the run: `sandgate workflow status RUN` goes on with it.
A server that restarts meanwhile is waited for, up to five minutes.

## Environments

```sh
sandgate run -c 'print("hello")'
sandgate environment create work --idle-timeout 600
sandgate files put work data.csv
sandgate run --environment work --env MODE=test report.py --year 2026
sandgate files get work report.html
sandgate terminal work
sandgate environment delete work
```

`run` shows output as it is written and ends with the exit code of the code; without `--environment` it makes one for
this run, and ends it again. What comes behind FILE is for the code; behind `-c CODE`, put `--` before arguments that
begin with a dash. `terminal` gives this terminal to a shell there until it ends, or until Ctrl-]. An environment is
named by its id, or by its name where one live environment of yours has it.

```sh
sandgate process start --name web work python -m http.server 8000
sandgate port ask work 8000 report.html
sandgate port link work 8000 --expires-in 600
sandgate process logs work web --follow
SESSION=$(sandgate session create work)
sandgate run --environment work --session $SESSION -c 'x = 41'
sandgate run --environment work --session $SESSION -c 'x + 1'
sandgate snapshot create work --name prepared
sandgate environment create try-1 --snapshot prepared
sandgate environment fork work --count 3
sandgate volume create data --size-mb 256
sandgate environment create reader --volume data:/data:ro
sandgate run --volume data:/data -c 'open("/data/kept", "w").write("kept")'
```

Volumes, snapshots and processes may be named by their names, too, where one of yours has it. Options of `process
start` come before ENVIRONMENT, its command behind it.

## Definitions

`FILE` is JSON or YAML; `-` is standard input. A name that ends in `.json` is read as JSON, one in `.yaml` or `.yml` as
YAML, and anything else as JSON when it begins with `{`. Everything that is wrong with a definition is said at once,
with the line of the file and the JSON pointer:

```
report.yaml:5: /steps/0/nedds: is unknown; did you mean `needs`?
```

YAML is a notation for JSON here: `on`, `no` and dates are texts, numbers are those of YAML 1.2. Aliases may be used,
within bounds. Refused are keys given twice, tags, merge keys (`<<`), `.nan` and `.inf`, and more than one document.

## Which server

| stronger first | |
| --- | --- |
| `--profile NAME` | the login of that name |
| `SANDGATE_URL` with `SANDGATE_API_KEY` or `SANDGATE_TOKEN` | for programs; nothing is read from a file |
| `SANDGATE_PROFILE` | the login of that name |
| | the login called `default` |

Logins are in `sandgate/credentials.json` below `$XDG_CONFIG_HOME` or `~/.config`, readable by their owner only (mode
0600, the folder 0700); a file that others may read is refused. `SANDGATE_URL` alone uses a stored key only if that key
is of the same server. These four variables are no settings of a server, and do not keep one from starting.

## Output

With `--json` a command prints one JSON document and nothing else on standard output; messages go to standard error.
What comes from a server (names, messages, output of code) may hold characters that command a terminal. They are shown
as in `\\x1b`, never sent, when standard output is a terminal; `--raw` of `logs`, `run` and `port ask` sends them, and
`terminal` does by its nature. What goes to a file or a pipe by `logs`, `run`, `port ask` and `files get` is unchanged.

## Exit codes

`run`, `terminal`, `process wait` and `process logs --follow` end with the exit code of what was run, `run` with 124
when its time was over, and 137 when it wanted too much memory. When there is none, a line on standard error begins
with `sandgate:`, and the code is one of these:

| code | |
| --- | --- |
"""


def render() -> str:
    """The whole page."""
    # Typer gives its own commands no types that others may use.
    root: Any = typer.main.get_command(make_app())
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return _HEAD + codes + "\n## Commands\n" + "".join(_sections(root, "sandgate"))


def _sections(command: Any, path: str) -> Iterator[str]:
    members: dict[str, Any] = getattr(command, "commands", {})
    if not members:
        yield _section(command, path)
    for name, member in members.items():
        yield from _sections(member, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    """A heading, how it is called, what it does, what it takes."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    named, flags = [_placeholder(each) for each in arguments], ["[OPTIONS]"] if options else []
    # Behind an argument that is code they are for the code.
    follow = getattr(command, "allow_interspersed_args", True)
    usage = " ".join([path, *(named + flags if follow else flags + named)])
    rows = [(f"`{_placeholder(each)}`", each.help or "") for each in arguments if each.help]
    rows += [(_flags(each), _explain(each)) for each in options]
    table = "".join(f"| {_cell(name)} | {_cell(text)} |\n" for name, text in rows)
    return f"\n### {path}\n\n`{usage}`\n\n{_paragraphs(command.help)}\n" + (
        f"\n| | |\n| --- | --- |\n{table}" if rows else ""
    )


def _paragraphs(text: str) -> str:
    """The help as it is shown in a terminal, each paragraph on a line; JSON in it as code."""
    joined = [" ".join(part.split()) for part in (text or "").split("\n\n")]
    return "\n\n".join(re.sub(r"\{\".*\}", lambda found: f"`{found.group()}`", part) for part in joined if part)


def _placeholder(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[]")
    return name if argument.required else f"[{name}]"


def _flags(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or _value(option)}"
    names = [f"`{name}{value}`" for name in (*option.opts, *option.secondary_opts)]
    return ", ".join(names)


def _value(option: Any) -> str:
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(each.value) for each in kind)
    return "NUMBER" if kind in (int, float) else "TEXT"


def _explain(option: Any) -> str:
    default = option.default
    shown = not option.is_flag and isinstance(default, str | int) and default != "" and option.show_default
    return f"{option.help or ''} Default: {getattr(default, 'value', default)}." if shown else option.help or ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
