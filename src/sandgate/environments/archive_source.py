"""The file of a snapshot, for those that are to begin with it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

from sandgate.core.errors import SnapshotUnreadable
from sandgate.core.limits import MIB

_PIECE_BYTES = MIB
# What each entry of a tar takes at least.
_BLOCK_BYTES = 512


class Source:
    """The file of a snapshot, from which ``readers`` environments are to begin; then it is closed.

    With ``sha256`` whoever reads it finds out whether it is what was written.
    """

    def __init__(self, descriptor: int, readers: int = 1, sha256: bytes | None = None) -> None:
        self._descriptor = descriptor
        self._readers = readers
        self._sha256 = sha256
        self.size_bytes = os.fstat(descriptor).st_size

    @property
    def most_entries(self) -> int:
        """No file has more for its size: what it holds may be laid out whatever the settings say by then."""
        return self.size_bytes // _BLOCK_BYTES + 1

    @property
    def descriptor(self) -> int:
        """The file, for somebody else who reads all of it."""
        return self._descriptor

    async def check(self) -> None:
        """Read all of it, to find out whether it is what was written. Raises ``SnapshotUnreadable``."""
        if self._sha256 is not None:
            async for _piece in self.pieces():
                continue

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it. Raises ``SnapshotUnreadable``."""
        digest = hashlib.sha256()
        offset = 0
        while piece := await asyncio.to_thread(self._read, offset, digest):
            offset += len(piece)
            yield piece
        if self._sha256 is not None and digest.digest() != self._sha256:
            raise SnapshotUnreadable("The file of the snapshot is not what was written; delete the snapshot")

    def _read(self, offset: int, digest: "hashlib._Hash") -> bytes:
        try:
            piece = os.pread(self._descriptor, _PIECE_BYTES, offset)
        except OSError as error:
            raise SnapshotUnreadable(f"The file of the snapshot cannot be read: {error.strerror}") from error
        if self._sha256 is not None:
            digest.update(piece)
        return piece

    def release(self) -> None:
        """One reader less."""
        self._readers -= 1
        if not self._readers:
            os.close(self._descriptor)
