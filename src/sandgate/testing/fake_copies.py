"""Copies of the files of fake sandboxes."""

import asyncio
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sandgate.core.errors import ArchiveInvalid, SandboxFailed, SandgateError, SnapshotTooLarge
from sandgate.core.ids import EnvironmentId


class Holder(Protocol):
    """A sandbox, as far as it matters here."""

    def folder(self) -> str:
        """Its work folder."""
        ...


class FakeCopies:
    """See ``FileCopier``. ``failure`` is raised instead, when it is set; ``can_copy`` is what it answers.

    Packing waits for ``gate``, when it is set.
    """

    def __init__(self, sandboxes: Callable[[], Mapping[EnvironmentId, Holder]], check: Callable[[], None]) -> None:
        self._sandboxes = sandboxes
        self._check = check
        self.can_copy = True
        self.failure: SandgateError | None = None
        self.made: list[tuple[EnvironmentId, EnvironmentId]] = []
        self.packed = 0
        self.gate: asyncio.Event | None = None

    async def copy(
        self,
        source: EnvironmentId,
        target: EnvironmentId,
        tops: Sequence[str],  # noqa: ARG002 - it has one folder
        most_entries: int,
        most_bytes: int,
        limit_s: float,  # noqa: ARG002 - it takes no time
    ) -> bool:
        """See ``FileCopier``."""
        from_folder, to_folder = self._find(source), self._find(target)
        entries, size = _measure(from_folder)
        if entries > most_entries or size > most_bytes:
            raise SnapshotTooLarge("There is more than may be copied", {"limit_bytes": most_bytes})
        if self.can_copy:
            # Others get their turn, as they do while a real one is at work.
            await asyncio.sleep(0)
            shutil.copytree(from_folder, to_folder, symlinks=True, dirs_exist_ok=True)
            self.made.append((source, target))
        return self.can_copy

    async def pack(
        self,
        source: EnvironmentId,
        file: int,
        tops: Sequence[str],  # noqa: ARG002
        most_entries: int,
        most_bytes: int,
        limit_s: float,  # noqa: ARG002 - it takes no time
    ) -> Mapping[str, int]:
        """See ``FileCopier``."""
        folder = self._find(source)
        entries, size = _measure(folder)
        if entries > most_entries or size > most_bytes:
            raise SnapshotTooLarge("There is more than may be packed", {"limit_bytes": most_bytes})
        if self.gate is not None:
            await self.gate.wait()
            self._find(source)
        await asyncio.sleep(0)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.add(folder, "workspace")
        if len(out.getvalue()) > most_bytes:
            raise SnapshotTooLarge("The archive is larger than it may be", {"limit_bytes": most_bytes})
        os.write(file, out.getvalue())
        self.packed += 1
        return {"files": entries, "disk_bytes": size, "skipped": 0}

    async def unpack(
        self,
        target: EnvironmentId,
        file: int,
        tops: Sequence[str],  # noqa: ARG002
        most_entries: int,  # noqa: ARG002
        most_bytes: int,  # noqa: ARG002
        limit_s: float,  # noqa: ARG002
    ) -> None:
        """See ``FileCopier``."""
        folder = self._find(target)
        await asyncio.sleep(0)
        content = os.pread(file, os.fstat(file).st_size, 0)
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(Path(folder).parent)  # noqa: S202 - it is our own
        except tarfile.TarError as error:
            raise ArchiveInvalid(str(error)) from error

    def _find(self, environment_id: EnvironmentId) -> str:
        self._check()
        if self.failure is not None:
            raise self.failure
        there = self._sandboxes()
        if environment_id not in there:
            raise SandboxFailed("There is no such sandbox")
        return there[environment_id].folder()


def _measure(folder: str) -> tuple[int, int]:
    found = list(Path(folder).rglob("*"))
    return len(found), sum(path.stat().st_size for path in found if path.is_file())
