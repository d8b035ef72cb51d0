"""The folders of what was built for templates, in the state folder: one for each, which nobody changes any more."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sandgate.core.built import BuildFailed, LayerSize
from sandgate.core.errors import MechanismFault
from sandgate.telemetry.log import get_logger
from sandgate_agent import landlock

_LONGEST_ANSWER_BYTES = 64 * 1024
_STAGING, _SPOOL = ".part", ".tar"
_PLACES = "--places="

_log = get_logger(__name__)


class LayerFolders:
    """See :class:`sandgate.environments.builds.base.Layers`."""

    def __init__(self, folder: Path, *, most_bytes: int, most_files: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._has_warned = False

    def has(self, name: str) -> bool:
        """Whether it is there, whole."""
        return (self._folder / name).is_dir()

    def spool(self, name: str) -> Path:
        """Where an archive waits until it is laid out."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / f"{name}{_SPOOL}"

    async def keep(self, name: str, archive: AsyncIterator[bytes]) -> LayerSize:
        """Lay out a tar as the layer of this name. Raises ``BuildFailed``, ``MechanismFault``, and what reading does.

        It is there whole, or it is not there.
        """
        async with self._staged(name) as staging:
            said = await self._unpack("layer_unpacker", staging, archive)
        return _parse_size(said)

    async def keep_root(self, name: str, archive: Path, programs: Sequence[str]) -> Mapping[str, Any]:
        """Lay out an archive with a root file system. Raises ``BuildFailed``, ``MechanismFault``.

        What it says: ``files``, ``size_bytes``, ``env``, ``folder``, and where the ``programs`` are that it has.
        """
        with archive.open("rb") as file:
            async with self._staged(name) as staging:
                return await self._unpack("root_unpacker", staging, None, file.fileno(), programs)

    async def keep_changed_root(
        self, name: str, archive: AsyncIterator[bytes], programs: Sequence[str], places: str
    ) -> Mapping[str, Any]:
        """Lay out a tar of a root file system, whose ``programs`` are in ``places``. Says and raises the same.

        And what reading the tar raises.
        """
        async with self._staged(name) as staging:
            return await self._unpack("root_unpacker", staging, archive, more=[f"{_PLACES}{places}", *programs])

    @asynccontextmanager
    async def _staged(self, name: str) -> AsyncIterator[Path]:
        """A folder that becomes the one of this name, when all goes well, also for a machine that loses its power."""
        staging = self._folder / f"{name}{_STAGING}"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging.mkdir(mode=0o755)
        staging.chmod(0o755)
        try:
            yield staging
            await _put_in_place(staging, self._folder / name)
        except BaseException:
            await _see_through(asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True))
            raise

    async def _unpack(
        self,
        unpacker: str,
        staging: Path,
        archive: AsyncIterator[bytes] | None,
        stdin: int = asyncio.subprocess.PIPE,
        more: Sequence[str] = (),
    ) -> dict[str, Any]:
        self._warn()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"sandgate.sandbox.{unpacker}",
            str(staging), str(self._most_bytes), str(self._most_files), *more,
            stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd="/", env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
        )  # fmt: skip
        try:
            answering = asyncio.ensure_future(_read_answer(process))
            if archive is not None:
                await _feed(process, archive)
            said, problem = await answering
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            raise BuildFailed(f"What was built cannot be kept: {_last_line(problem) or 'it could not be unpacked'}")
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            raise MechanismFault("What was built could not be unpacked: nothing was said of how it went") from None
        return answer

    def _warn(self) -> None:
        """Say once that what unpacks is not shut in."""
        if not self._has_warned and not landlock.find_version():
            _log.warning("layers are laid out without a fence: no Landlock", mend=landlock.MEND)
            self._has_warned = True

    async def drop(self, name: str) -> None:
        """Remove it, if it is there."""
        for suffix in ("", _STAGING, _SPOOL):
            await asyncio.to_thread(_remove, self._folder / f"{name}{suffix}")

    async def sweep(self, names: Collection[str], spared: str = "") -> None:
        """Remove all but these: what an earlier process left half done, or had not got to remove."""
        with suppress(FileNotFoundError):
            for folder in await asyncio.to_thread(os.listdir, self._folder):
                half_done = folder.endswith((_STAGING, _SPOOL))
                if folder not in names and (half_done or not (spared and folder.startswith(spared))):
                    await asyncio.to_thread(_remove, self._folder / folder)


async def _put_in_place(staging: Path, folder: Path) -> None:
    """It is there when this returns, and when this fails or is cancelled it is not. Raises ``OSError``."""
    settling = asyncio.ensure_future(asyncio.to_thread(_settle, staging, folder))
    try:
        await _see_through(settling)
    except asyncio.CancelledError:
        if settling.exception() is None:
            await _see_through(asyncio.to_thread(_remove, folder))
        raise


async def _see_through(work: Awaitable[None]) -> None:
    """Nothing stops a thread: whoever is cancelled, however often, hears of it when the work is done."""
    done, is_cancelled = asyncio.ensure_future(work), False
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    done.result()


def _settle(staging: Path, folder: Path) -> None:
    """What is in it is on the disk already, its name not before this returns. Raises ``OSError``, undone."""
    staging.rename(folder)
    try:
        above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)
    except OSError:
        folder.rename(staging)
        raise


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    # It may be an archive that was never laid out.
    with suppress(OSError):
        path.unlink()


def _parse_size(said: Mapping[str, Any]) -> LayerSize:
    try:
        return LayerSize(**said)
    except TypeError:
        raise MechanismFault("What was built could not be unpacked: nothing was said of how much it is") from None


async def _feed(process: asyncio.subprocess.Process, archive: AsyncIterator[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    # One that refuses the archive reads no more of it.
    with suppress(BrokenPipeError, ConnectionResetError):
        async for piece in archive:
            process.stdin.write(piece)
            await process.stdin.drain()
    process.stdin.close()


async def _read_answer(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    assert process.stderr is not None  # noqa: S101 - same
    said, problem = await asyncio.gather(
        process.stdout.read(_LONGEST_ANSWER_BYTES), process.stderr.read(_LONGEST_ANSWER_BYTES)
    )
    await process.wait()
    return said, problem


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""
