"""A machine as the scripts of the repository meet it: a checkout, and small programs in place of the system's own."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 120
# What the scripts use of every machine; nothing else of this one is on their PATH.
_TOOLS = (
    "cat",
    "chmod",
    "cksum",
    "cp",
    "dirname",
    "grep",
    "mkdir",
    "mktemp",
    "paste",
    "rm",
    "sed",
    "sh",
    "sleep",
    "tr",
)

#: An interpreter: answers the probes of the scripts, makes ``.venv`` with one of its kind in it, and has a pip that
#: brings uv. ``$STATE`` holds files that decide what there is.
PYTHON = """\
case "$*" in
*find_interpreters*) [ -e "$STATE/python3.9" ] ;;
*libseccomp*) [ -e "$STATE/libseccomp" ] ;;
*_base_executable*) echo "$0" ;;
*version_info*) ;;
*'-m venv'*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "$PWD/.venv" >.venv/bin/activate ;;
*'-m pip'*uv.lock) [ -e "$STATE/index" ] && cp "$STATE/uv" .venv/bin/uv || { echo 'ERROR: no index' >&2; exit 1; } ;;
*'-m pip'*--version) ;;
*'-m pip'*) [ -e "$STATE/index" ] ;;
esac
"""
#: uv: installs where there is an index, and fetches interpreters where there is a mirror.
UV = """\
case "$*" in
'python install'*) [ -e "$STATE/mirror" ] && : >"$STATE/python3.9" ;;
*) [ -e "$STATE/uv-index" ] ;;
esac
"""
# Skips the options and the limit that was asked for; where there is to be one, it is short.
_QUICK_TIMEOUT = """\
while case "$1" in -*) ;; *) false ;; esac; do shift; done
shift
[ -e "$STATE/hurry" ] && exec {real} 0.3 "$@"
exec "$@"
"""


@dataclass
class Fresh:
    """One machine; ``folder`` is empty at first."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checkout, self.bin, self.state = (self.folder / name for name in ("checkout", "bin", "state"))
        for folder in (self.bin, self.state, self.checkout / "src/sandgate"):
            folder.mkdir(parents=True)
        shutil.copytree(
            ROOT / "scripts", self.checkout / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__")
        )
        for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock", "src/sandgate/__init__.py"):
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in _TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "/missing")
        self.become(0)
        self.put("uv", UV, self.state)
        self.put("timeout", _QUICK_TIMEOUT.format(real=shutil.which("timeout")))
        self.environ |= {"PATH": str(self.bin), "STATE": str(self.state), "SSL_CERT_FILE": "/given"}

    def become(self, user_id: int) -> None:
        """Run the scripts as this user, as far as they can tell."""
        self.put("id", f"echo {user_id}")

    def put(self, name: str, script: str, folder: Path | None = None) -> None:
        """Put a program on the machine; each call of it is noted with its arguments."""
        path = (folder or self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$STATE/calls"\n{script}\n')
        path.chmod(0o755)

    def have(self, *names: str) -> None:
        """Let there be ``index``, ``uv-index``, ``mirror``, ``python3.9``, ``libseccomp``, ``hurry`` (short limits)."""
        for name in names:
            (self.state / name).touch()

    def find_python(self, *, after: str = "") -> None:
        """Let ``scripts/find-python`` find an interpreter, once there is a file of this name in the state."""
        self.put("python", PYTHON)
        condition = f'[ -e "$STATE/{after}" ] && ' if after else ""
        self.put("find-python", f'{condition}echo "{self.bin}/python"', self.checkout / "scripts")

    def run(self, script: str, *arguments: str, typed: str = "", environ: Mapping[str, str] | None = None) -> "Done":
        """Run a script of the checkout to its end; ``typed`` is what somebody at the keyboard would have typed."""
        (self.state / "calls").unlink(missing_ok=True)
        done = subprocess.run(
            [str(self.checkout / "scripts" / script), *arguments],
            input=typed,
            env=self.environ | dict(environ or {}),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        calls = self.state / "calls"
        return Done(done.returncode, done.stdout, done.stderr, calls.read_text().splitlines() if calls.exists() else [])


@dataclass(frozen=True)
class Done:
    """How a script ended, what it said, and what it called of the programs that were put there."""

    code: int
    said: str
    complained: str
    calls: Sequence[str]

    def calls_of(self, name: str) -> list[str]:
        """The arguments of each call of one program."""
        return [call.partition(" ")[2] for call in self.calls if call.startswith(f"{name} ")]


def note_environ(*names: str) -> str:
    """A line of a program that notes these variables as it sees them."""
    return "\n".join(f'echo "{name}=${{{name}-}}" >>"$STATE/calls"' for name in names)
