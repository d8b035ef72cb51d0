"""Output of an execution that a later gateway may take up: looked at, and left where that gateway finds it.

A little stays in the pipe, of which the launcher keeps a copy of the end. What is more moves into a file, in one step
of the kernel's, so that no kill can hit between the two.
"""

import ctypes
import os
from collections.abc import Callable, Collection
from pathlib import Path

from sandgate.sandbox.output import LARGEST_PIPE_BYTES, OutputStream

_LOOK_BYTES = 65_536
# More than this is moved: a pipe that is full would stop the code. Source: pipe(7), 16 pages.
_MOST_LEFT_BYTES = 32_768
_SHORTEST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05
_SPLICE_F_NONBLOCK = 2

_library = ctypes.CDLL(None, use_errno=True)


class Keeping:
    """What the kept outputs of one process share: a pipe to look through, and the folder of their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def look(self, pipe: int) -> bytes:
        """All that is in a pipe, as far as it fits one of ordinary size, without taking it out. Source: tee(2)."""
        copied = _library.tee(pipe, self._in, _LOOK_BYTES, _SPLICE_F_NONBLOCK)
        return os.read(self._out, copied) if copied > 0 else b""

    def path(self, environment_id: str, name: str) -> Path:
        """Where the file of one stream is."""
        return self._folder / f"{environment_id}.{name}"

    def open(self, path: Path) -> int:
        """Open a file, which is made when it is not there."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def forget(self, environment_id: str) -> None:
        """Remove the files of an environment."""
        for path in self._folder.glob(f"{environment_id}.*"):
            path.unlink(missing_ok=True)

    def sweep(self, live: Collection[str]) -> None:
        """Remove the files of all environments but these."""
        for path in self._folder.glob("*"):
            if path.name.partition(".")[0] not in live:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._out)
        os.close(self._in)


class KeptOutputStream(OutputStream):
    """See :class:`sandgate.sandbox.output.OutputStream`. ``path`` is where the file is made, or is already."""

    def __init__(
        self,
        descriptor: int,
        keep_bytes: int,
        drop_bytes: int,
        on_flood: Callable[[], None],
        *,
        keeping: Keeping,
        path: Path,
    ) -> None:
        super().__init__(descriptor, keep_bytes, drop_bytes, on_flood)
        self._keeping = keeping
        self._path = path
        self.is_moved = False
        self._file = -1
        self._moved_bytes = 0
        self._seen_bytes = 0
        self._pause_s = _SHORTEST_PAUSE_S

    def recover(self) -> None:
        """Take what an earlier gateway moved, if it did."""
        if not self._path.exists():
            return
        self._open_file()
        while part := os.pread(self._file, _LOOK_BYTES, self._moved_bytes):
            self._take(part)
            self._moved_bytes = min(self._moved_bytes + len(part), self._keep_bytes)
            if self._dropped_bytes:
                break

    def _open_file(self) -> None:
        self._file = self._keeping.open(self._path)
        self.is_moved = True

    def _read(self) -> int:
        """The number of new bytes, -1 when there are none now. An end of file is not seen: the slot tells of ends."""
        if self._file >= 0:
            return self._move()
        data = self._keeping.look(self._descriptor)
        new = data[self._seen_bytes :]
        if new:
            self._take(new)
        if len(data) > _MOST_LEFT_BYTES:
            self._open_file()
            self._move_seen(len(data))
        else:
            self._seen_bytes = len(data)
        return len(new) or -1

    def _move_seen(self, length: int) -> None:
        """Move what was looked at, as far as it is kept."""
        while length > 0:
            if self._room <= 0:
                length -= len(os.read(self._descriptor, length))
                self._mark_dropped()
                continue
            moved = os.splice(self._descriptor, self._file, min(length, self._room), offset_dst=self._moved_bytes)
            self._moved_bytes += moved
            length -= moved

    def _mark_dropped(self) -> None:
        """A byte beyond the cap tells whoever recovers the file that there was more."""
        os.ftruncate(self._file, self._keep_bytes + 1)

    @property
    def _room(self) -> int:
        return self._keep_bytes - self._moved_bytes

    def _move(self) -> int:
        """Move what has come, and read it from the file; what is beyond the cap is dropped."""
        if self._room <= 0:
            dropped = super()._read()
            if dropped > 0:
                self._mark_dropped()
            return dropped
        try:
            moved = os.splice(
                self._descriptor, self._file, min(self._room, _LOOK_BYTES),
                offset_dst=self._moved_bytes, flags=os.SPLICE_F_NONBLOCK,
            )  # fmt: skip
        except BlockingIOError:
            return -1
        if moved:
            self._take(os.pread(self._file, moved, self._moved_bytes))
            self._moved_bytes += moved
        return moved

    def _on_readable(self) -> None:
        if self._file >= 0:
            # The pipe is emptied each time, so that it tells when there is more.
            super()._on_readable()
            return
        # As long as something is left in the pipe it can be read: until it is moved this looks by the clock.
        self._unwatch()
        self._pause_s = _SHORTEST_PAUSE_S if self._read() > 0 else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._rest(self._pause_s)

    def finish(self) -> None:
        """Look at what is left, and leave it there."""
        if not self._open:
            return
        self._unwatch()
        left = LARGEST_PIPE_BYTES
        while left > 0 and (length := self._read()) > 0 and self._file >= 0:
            left -= length
        self._open = False
        os.close(self._descriptor)
        if self._file >= 0:
            os.close(self._file)


class Spool:
    """Makes the streams of an environment's execution that a later gateway may take up."""

    def __init__(self, keeping: Keeping, environment_id: str) -> None:
        self._keeping = keeping
        self._environment_id = environment_id
        self._streams: list[KeptOutputStream] = []

    def stream(
        self, name: str, descriptor: int, keep_bytes: int, drop_bytes: int, on_flood: Callable[[], None]
    ) -> KeptOutputStream:
        """The stream of this name."""
        path = self._keeping.path(self._environment_id, name)
        made = KeptOutputStream(descriptor, keep_bytes, drop_bytes, on_flood, keeping=self._keeping, path=path)
        self._streams.append(made)
        return made

    def recover(self) -> None:
        """Take what an earlier gateway moved."""
        for stream in self._streams:
            stream.recover()

    def forget(self) -> None:
        """Remove the files, if there are any: nobody will take the execution up any more."""
        if any(stream.is_moved for stream in self._streams):
            self._keeping.forget(self._environment_id)
