"""Prefect beside sandgate: the same functions as its tasks, in a virtual environment that is thrown away.

Prefect runs them in its own process, with nothing around them; its server is the one that it starts by itself, on
loopback, with its database in a temporary folder.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from bench.context import say
from bench.references import ReferenceUnavailable

# A fresh Prefect asks for no newest FastAPI, and does not work with the one that it then gets.
PACKAGES = ("prefect==3.9.1", "fastapi==0.139.0")
INSTALL_S = 180.0
RUN_S = 180.0

PROGRAM = """
import json, sys, time
from prefect import flow, task

def fibo(n):
    return n if n <= 1 else fibo(n - 1) + fibo(n - 2)

@task
def step(n):
    return fibo(n)

@flow
def sequence(count, n):
    for _ in range(count):
        step(n)

@flow
def fan_out(count, n):
    for future in step.map([n] * count):
        future.result()

def seconds(work, *arguments):
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started

sequence(2, 1)
fan_out(2, 1)
kind, count, n, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
work = {"sequence": sequence, "fan-out": fan_out}[kind]
print(json.dumps([seconds(work, count, n) for _ in range(rounds)]))
"""


@cache
def _install() -> Path:
    """The folder of the virtual environment, which goes when this process does. Raises ``ReferenceUnavailable``."""
    folder = Path(tempfile.mkdtemp(prefix="sandgate-prefect-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    say(f"  installing {PACKAGES[0]} to compare with")
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(folder / "venv" / "bin" / "python")
    try:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], INSTALL_S)
        _run([uv, "pip", "install", "--quiet", "--python", python, *PACKAGES], INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        raise ReferenceUnavailable(f"Prefect cannot be installed here ({_reason(error)})") from error
    return folder


def prefect_seconds(kind: str, count: int, n: int, rounds: int) -> list[float]:
    """Seconds of each round of a ``sequence`` or a ``fan-out`` of tasks. Raises ``ReferenceUnavailable``."""
    folder = _install()
    program = folder / "flows.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [str(folder / "venv" / "bin" / "python"), str(program), kind, str(count), str(n), str(rounds)]
    try:
        said = _run(command, RUN_S, _environ(folder))
    except (subprocess.SubprocessError, OSError) as error:
        raise ReferenceUnavailable(f"Prefect did not run ({_reason(error)})") from error
    seconds: list[float] = json.loads(said.splitlines()[-1])
    return seconds


def _environ(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "DO_NOT_TRACK": "1",
    }


def _run(command: list[str], limit_s: float, environ: dict[str, str] | None = None) -> str:
    """What a program says; it and whatever it started ends with it, or when its time is over."""
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, complaint = process.communicate(timeout=limit_s)
    finally:
        _end_group(process)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command[:1], said, complaint)
    return said


def _end_group(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not done within {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
        return lines[-1].strip()[:120] if lines else f"exit code {error.returncode}"
    return str(error)
