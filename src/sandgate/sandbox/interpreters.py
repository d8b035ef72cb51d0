"""Finds the interpreters of this machine that templates can be made from.

Looked for in this order: folders that the settings name, uv's managed interpreters, pyenv's versions (never its shims,
which are shell scripts), ``/usr/local/bin``, ``/usr/bin``. Within one place the newest patch version comes first. A
candidate counts only after it has been run once and has said what it is.
"""

import json
import os
import re
import selectors
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

#: Minor versions of CPython that agents run on, oldest first.
SUPPORTED = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")

_SYSTEM_FOLDERS = ("/usr/local/bin", "/usr/bin")
# For all of them together, on a machine that is busy with other things, too.
_DEADLINE_S = 15.0
_LONGEST_ANSWER = 64 * 1024
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
# ctypes is what agents make their system calls with; a build without libffi cannot hold one.
_PROGRAM = (
    "import ctypes, json, os, sys\n"
    "print(json.dumps({'version': list(sys.version_info[:3]), 'prefix': sys.base_prefix, 'flags': sys.abiflags,"
    " 'name': sys.implementation.name, 'executable': os.path.realpath(sys.executable)}))\n"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter that was run once.

    ``version`` is the minor version (``3.9``), ``executable`` has no links in it, ``prefix`` is the folder that the
    interpreter needs (its own ``sys.base_prefix``) and holds the executable; ``place`` says where it was found.
    """

    version: str
    full_version: str
    executable: str
    prefix: str
    place: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that is named like an interpreter."""

    version: str
    path: Path
    place: str


@dataclass(frozen=True, slots=True)
class _Trial:
    """A candidate that is being run."""

    candidate: _Candidate
    process: subprocess.Popen[bytes]


_Identity = tuple[str, int, int, int]

_known: dict[_Identity, Interpreter | None] = {}
_known_lock = threading.Lock()


def find_interpreters(extra_folders: Sequence[Path] = ()) -> dict[str, Interpreter]:
    """The best working CPython of each supported minor version, by minor version, oldest first.

    ``extra_folders`` may be prefixes (``PREFIX/bin/python3.X``), folders of executables, or folders of prefixes. What
    was found out about a file is remembered for as long as the file does not change. Answers within some seconds,
    whatever the candidates do, and never raises.
    """
    candidates = {version: list(_candidates(version, extra_folders)) for version in SUPPORTED}
    found: dict[str, Interpreter] = {}
    deadline = time.monotonic() + _DEADLINE_S
    # One round tries the best candidate of each version side by side; the next round those that take its place.
    while any(candidates.values()) and time.monotonic() < deadline:
        tried = [waiting.pop(0) for waiting in candidates.values() if waiting]
        for candidate, interpreter in _try_all(tried, deadline):
            if interpreter is not None:
                found[candidate.version] = interpreter
                candidates[candidate.version] = []
    return {version: found[version] for version in SUPPORTED if version in found}


def _candidates(version: str, extra_folders: Sequence[Path]) -> Iterator[_Candidate]:
    """Every usable file for a minor version, best first, each file once."""
    seen: set[str] = set()
    for place, paths in _places(version, extra_folders):
        for path in paths:
            real = os.path.realpath(path)
            if real not in seen and _is_usable(path):
                seen.add(real)
                yield _Candidate(version, path, place)


def _places(version: str, extra_folders: Sequence[Path]) -> Iterator[tuple[str, Iterable[Path]]]:
    """Where to look, in order, and what to look at there."""
    name = f"python{version}"
    for folder in extra_folders:
        below = _newest_first(folder, f"bin/{name}")
        yield f"interpreters ({folder})", [folder / "bin" / name, folder / name, *below]
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(_data_home(), "uv", "python")
    yield "uv", _newest_first(Path(uv), f"bin/{name}")
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    yield "pyenv", _newest_first(Path(pyenv) / "versions", f"bin/{name}")
    yield "system", [Path(folder) / name for folder in _SYSTEM_FOLDERS]


def _data_home() -> str:
    """Source: the XDG base directory specification."""
    return os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")


def _newest_first(folder: Path, tail: str) -> list[Path]:
    """``folder/*/tail``, by the version in the middle part's name."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / name / tail for name in sorted(names, key=_version_of, reverse=True)]


def _version_of(name: str) -> tuple[int, ...]:
    """The version in a folder's name (``3.9.18``, ``cpython-3.9.18-linux-…``); none is the oldest."""
    match = _VERSION.search(name)
    return tuple(map(int, match.groups())) if match else ()


def _is_usable(path: Path) -> bool:
    """Whether it is an executable file that not everybody may write: it is about to be run, perhaps by root."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and os.access(path, os.X_OK) and not status.st_mode & stat.S_IWOTH


def _try_all(candidates: Sequence[_Candidate], deadline: float) -> Iterator[tuple[_Candidate, Interpreter | None]]:
    """Each candidate with what it turned out to be; those that are not known yet are run side by side."""
    unknown = [candidate for candidate in candidates if not _is_known(candidate)]
    trials = [trial for candidate in unknown if (trial := _start(candidate)) is not None]
    answers = _collect(trials, deadline)
    for candidate in unknown:
        if candidate in answers:
            _remember(candidate, _judge(candidate, answers[candidate]))
    for candidate in candidates:
        yield candidate, _recall(candidate)


def _is_known(candidate: _Candidate) -> bool:
    with _known_lock:
        return _identity(candidate.path) in _known


def _recall(candidate: _Candidate) -> Interpreter | None:
    """What the file is known to be; None also when it has not answered."""
    with _known_lock:
        interpreter = _known.get(_identity(candidate.path))
    return interpreter and replace(interpreter, place=candidate.place)


def _identity(path: Path) -> _Identity:
    """What changes when a file does."""
    try:
        status = os.stat(path)
    except OSError:
        return str(path), 0, 0, 0
    return str(path), status.st_ino, status.st_mtime_ns, status.st_size


def _remember(candidate: _Candidate, interpreter: Interpreter | None) -> None:
    with _known_lock:
        _known[_identity(candidate.path)] = interpreter


def _start(candidate: _Candidate) -> _Trial | None:
    """Run the candidate, isolated from the environment variables and packages of whoever runs this."""
    try:
        process = subprocess.Popen(  # noqa: S603 - running it is the only way to know it
            [candidate.path, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        return None
    return _Trial(candidate, process)


def _collect(trials: Sequence[_Trial], deadline: float) -> Mapping[_Candidate, bytes]:
    """What each has printed by the deadline; those that have not ended by then are killed and left out."""
    answers: dict[_Candidate, bytes] = {}
    with selectors.DefaultSelector() as selector:
        for trial in trials:
            assert trial.process.stdout is not None  # noqa: S101 - it was asked for
            selector.register(trial.process.stdout, selectors.EVENT_READ, (trial, bytearray()))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                trial, output = key.data
                chunk = os.read(key.fd, _LONGEST_ANSWER)
                output += chunk
                if not chunk or len(output) > _LONGEST_ANSWER:
                    selector.unregister(key.fileobj)
                    answers[trial.candidate] = bytes(output)
    for trial in trials:
        _end(trial)
    return answers


def _end(trial: _Trial) -> None:
    """Leave no process and no descriptor behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(trial.process.pid, signal.SIGKILL)
    assert trial.process.stdout is not None  # noqa: S101 - it was asked for
    trial.process.stdout.close()
    trial.process.wait()


def _judge(candidate: _Candidate, answer: bytes) -> Interpreter | None:
    """The interpreter that the answer describes; None when it is none that templates can be made from."""
    try:
        fields = json.loads(answer)
        full_version = ".".join(str(int(part)) for part in fields["version"])
        executable, prefix = str(fields["executable"]), os.path.realpath(fields["prefix"])
        is_plain = fields["name"] == "cpython" and fields["flags"] == ""
    except (ValueError, TypeError, KeyError):
        return None
    if not is_plain or full_version.rpartition(".")[0] != candidate.version:
        return None
    # Only the prefix is shown to sandboxes, so the executable has to be in it.
    if not Path(executable).is_relative_to(prefix) or prefix == "/":
        return None
    return Interpreter(candidate.version, full_version, executable, prefix, candidate.place)
