"""What a process is started with has the numbers that it knows them by, whatever numbers they have in the launcher."""

import subprocess
import sys
from pathlib import Path

import pytest

# Marks each descriptor with the number that it has in the end, and those that are left over with a cross.
_SETTLE = """
import os, sys
from sandgate.sandbox.launcher import jail
from sandgate.sandbox.launcher.gvisor import container
kind, *numbers = sys.argv[1:]
numbers = list(map(int, numbers))
for number in {*numbers, 90}:
    opened = os.open(f"file-{number}", os.O_RDWR | os.O_CREAT)
    os.dup2(opened, number)
    os.close(opened)
if kind == "container":
    container._settle(numbers)
    settled = range(len(numbers))
else:
    jail._settle_descriptors(*numbers)
    settled = (1, 2, jail.CHANNEL_FD)
for number in range(100):
    try:
        os.write(number, str(number).encode() if number in settled else b"x")
    except OSError:
        pass
"""


def _marks(folder: Path, kind: str, numbers: list[int]) -> dict[int, str]:
    asked = [sys.executable, "-c", _SETTLE, kind, *map(str, numbers)]
    done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {number: (folder / f"file-{number}").read_text() for number in {*numbers, 90}}


@pytest.mark.parametrize(
    "numbers", [[70, 71, 71, 72, 73], [68, 67, 66, 65, 64], [80, 64, 64, 66, 65], [5, 6, 6, 7, 8], [63, 64, 64, 65, 66]]
)
def test_those_of_a_container(tmp_path: Path, numbers: list[int]) -> None:
    """Each is where it is wanted, and nothing else of the launcher's is open."""
    wanted: dict[int, str] = {90: ""}
    for place, number in enumerate(numbers):
        wanted[number] = wanted.get(number, "") + str(place)
    assert _marks(tmp_path, "container", numbers) == wanted


@pytest.mark.parametrize(("channel", "log"), [(70, 71), (10, 64), (64, 65), (65, 64), (4, 5), (5, 4)])
def test_those_of_a_zygote(tmp_path: Path, channel: int, log: int) -> None:
    """The log is both outputs, the channel what it is known by, and nothing else of the launcher's is open."""
    assert _marks(tmp_path, "zygote", [channel, log]) == {channel: "3", log: "12", 90: ""}
