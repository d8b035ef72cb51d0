"""Folders are copied to another place: all of them, and nothing that code puts in the way."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandgate.sandbox.launcher.tree_copy import Copied, TooMuch, TreeCopy

# Folder, link and pipe take each other's place all the time, and so do files.
_SWAP = """
import os, sys
os.chdir(sys.argv[1])
os.mkdir('mine'); open('mine/own', 'w').write('own'); os.mkdir('deep'); os.mkdir('deep/er')
for n in range(200): open(f'deep/er/{n}', 'w').write('own' * 3000)
os.symlink(sys.argv[2], 'link'); os.symlink(sys.argv[2] + '/secret', 'file-link'); os.mkfifo('pipe')
open('plain', 'w').write('own')
os.rename('mine', 'x'); os.rename('plain', 'y')
print('busy', flush=True)
while True:
    for one, other in (('x', 'mine'), ('link', 'x')): os.rename(one, other)
    for one, other in (('y', 'plain'), ('file-link', 'y')): os.rename(one, other)
    for one, other in (('x', 'link'), ('mine', 'x')): os.rename(one, other)
    for one, other in (('y', 'file-link'), ('pipe', 'y'), ('y', 'pipe'), ('plain', 'y')): os.rename(one, other)
    os.rename('deep/er', 'er'); os.rename('er', 'deep/er')
    for n in range(0, 200, 50): os.truncate(f'deep/er/{n}', n); os.truncate(f'deep/er/{n}', 9000)
"""


def _copy(source: Path, target: Path, most_entries: int = 100_000, most_bytes: int = 1 << 30) -> Copied:
    (target / "top").mkdir(parents=True, exist_ok=True)
    beginning, end = (os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in (source, target))
    try:
        return TreeCopy(beginning, end, most_entries, most_bytes).run(["top"])
    finally:
        os.close(beginning)
        os.close(end)


@contextmanager
def _swapping(folder: Path, outside: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", _SWAP, folder, outside], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def test_what_is_swapped_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """Of code that is not stopped nothing is followed or waited for: what comes is its own, or nothing."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "top").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with _swapping(source / "top", outside):
        for number in range(30):
            target = tmp_path / f"target-{number}"
            _copy(source, target)
            for path in target.rglob("*"):
                assert path.is_symlink() or path.is_dir() or path.is_file() or path.is_fifo()
                assert path.name != "secret"
                if path.is_file() and not path.is_symlink():
                    assert not path.read_bytes().strip(b"own\0")


def test_folders_are_as_they_were_however_they_lie(tmp_path: Path) -> None:
    """Modes and times, also of those that are emptied before others of theirs; other names of a file, anywhere."""
    source = tmp_path / "source" / "top"
    for name in ("a/b/c", "a/d", "e"):
        (source / name).mkdir(parents=True)
    (source / "a/b/c/f").write_text("x")
    for name in ("a/d/g", "e/h"):
        os.link(source / "a/b/c/f", source / name)
    folders = [*sorted(path for path in source.rglob("*") if path.is_dir()), source]
    for number, path in enumerate(reversed(folders)):
        path.chmod(0o500 + number)
        os.utime(path, ns=(number, 10**9 + number))
    copied = _copy(tmp_path / "source", tmp_path / "target")
    assert (copied.files, copied.folders, copied.links, copied.skipped) == (1, 5, 2, 0)
    for path in folders:
        made = (tmp_path / "target" / path.relative_to(tmp_path / "source")).stat()
        was = path.stat()
        assert (made.st_mode, made.st_mtime_ns) == (was.st_mode, was.st_mtime_ns)
    assert (tmp_path / "target/top/e/h").stat().st_nlink == 3
    for path in tmp_path.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)


def test_little_is_remembered_of_each(tmp_path: Path) -> None:
    """However long the paths are, folders and files of several names cost what their own names do."""
    (tmp_path / "source" / "top").mkdir(parents=True)
    above = os.open(tmp_path / "source" / "top", os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(12):
        os.mkdir("d" * 250, dir_fd=above)
        inner = os.open("d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
        os.close(above)
        above = inner
    for number in range(1000):
        os.mkdir(str(number), dir_fd=above)
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=above))
        os.link(f"f{number}", f"g{number}", src_dir_fd=above, dst_dir_fd=above)
    os.close(above)
    tracemalloc.start()
    try:
        copied = _copy(tmp_path / "source", tmp_path / "target")
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (copied.folders, copied.files, copied.links) == (1012, 1000, 1000)
    assert most < 1000 * 1000


def test_too_much_is_refused(tmp_path: Path) -> None:
    """Entries and bytes."""
    source = tmp_path / "source" / "top"
    source.mkdir(parents=True)
    for number in range(5):
        (source / str(number)).write_bytes(bytes(100))
    for entries, size in ((4, 1000), (5, 499)):
        with pytest.raises(TooMuch):
            _copy(tmp_path / "source", tmp_path / "target", entries, size)
    assert _copy(tmp_path / "source", tmp_path / "target", 5, 500).bytes == 500
