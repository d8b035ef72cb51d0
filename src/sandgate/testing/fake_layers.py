"""Layers that are nowhere but in memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandgate.core.built import LayerSize


def _stays(name: str, names: Collection[str], spared: str) -> bool:
    return name in names or (bool(spared) and name.startswith(spared))


class FakeLayers:
    """``Layers`` of which only the sizes are kept."""

    def __init__(self) -> None:
        self.kept: dict[str, LayerSize] = {}

    def has(self, name: str) -> bool:
        """See ``Layers``."""
        return name in self.kept

    async def keep(self, name: str, archive: AsyncIterator[bytes]) -> LayerSize:
        """See ``Layers``."""
        self.kept[name] = LayerSize(1, sum([len(piece) async for piece in archive]))
        return self.kept[name]

    def spool(self, name: str) -> Path:
        """See ``Layers``."""
        return Path(tempfile.gettempdir()) / f"{name}.tar"

    async def keep_root(self, name: str, archive: Path, programs: Sequence[str]) -> Mapping[str, Any]:
        """See ``Layers``; it has all the programs."""
        return self._keep_root(name, await asyncio.to_thread(lambda: archive.stat().st_size), programs, "/usr/bin")

    async def keep_changed_root(
        self, name: str, archive: AsyncIterator[bytes], programs: Sequence[str], places: str
    ) -> Mapping[str, Any]:
        """See ``Layers``; it has all the programs."""
        return self._keep_root(name, sum([len(piece) async for piece in archive]), programs, places)

    def _keep_root(self, name: str, size: int, programs: Sequence[str], places: str) -> Mapping[str, Any]:
        self.kept[name] = LayerSize(1, size)
        found = {program: f"/usr/bin/{program}" for program in programs}
        return {"files": 1, "size_bytes": size, "env": {"PATH": places}, "folder": "", "programs": found}

    async def drop(self, name: str) -> None:
        """See ``Layers``."""
        self.kept.pop(name, None)

    async def sweep(self, names: Collection[str], spared: str = "") -> None:
        """See ``Layers``."""
        self.kept = {name: size for name, size in self.kept.items() if _stays(name, names, spared)}
