"""Output of an execution that a later gateway may take up: looked at, and left where that gateway finds it.

A little stays in the pipe, of which the launcher keeps a copy of the end. What is more moves into a file, in one step
of the kernel's, so that no kill can hit between the two.
"""

import ctypes
import fcntl
import hashlib
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from sandgate.sandbox.output import LARGEST_PIPE_BYTES, OutputStream

_READ_BYTES = 65_536
# More than this is moved: a pipe that is full would stop the code. Source: pipe(7), 16 pages.
_MOST_LEFT_BYTES = 32_768
_SHORTEST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05
# What has been in the pipe for so long is moved, however little it is: each write may take a page of the pipe for
# itself, so that code may wait for room; and a file needs no looking by the clock.
_MOST_STILL_S = 1.0
_SPLICE_F_NONBLOCK = 2

_library = ctypes.CDLL(None, use_errno=True)


class Keeping:
    """What the kept outputs of one process share: a pipe to look through, and the folder of their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open_pipe()

    def _open_pipe(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # As many pieces as the largest pipe holds. Without the right to one, a pipe that has grown is moved late.
        with suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, LARGEST_PIPE_BYTES)

    def look(self, pipe: int) -> bytes:
        """All that is in a pipe, without taking it out. Source: tee(2)."""
        left: int = _library.tee(pipe, self._in, LARGEST_PIPE_BYTES, _SPLICE_F_NONBLOCK)
        parts = []
        try:
            while left > 0:
                # Less than there is when the code writes packets: each is read by itself.
                part = os.read(self._out, left)
                parts.append(part)
                left -= len(part)
        except OSError:
            # What is left over would be shown to the next one who looks.
            self.close()
            self._open_pipe()
        return b"".join(parts)

    def path(self, environment_id: str, tag: str, name: str) -> Path:
        """Where the file of one stream is."""
        return self._folder / f"{environment_id}.{_short(tag)}.{name}"

    def open(self, path: Path) -> int:
        """Open a file, which is made when it is not there."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def note(self, environment_id: str, tag: str, text: bytes) -> None:
        """Leave a later gateway word of what it takes up. Raises nothing: without it there is nothing to take up."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.path(environment_id, tag, "note")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                file.write(text)

    def read_note(self, environment_id: str, tag: str) -> bytes | None:
        """What an earlier gateway has left."""
        try:
            return self.path(environment_id, tag, "note").read_bytes()
        except OSError:
            return None

    def forget(self, environment_id: str, tag: str = "") -> None:
        """Remove the files of an environment, or of one execution in it."""
        for path in self._folder.glob(f"{environment_id}.{_short(tag)}.*" if tag else f"{environment_id}.*"):
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


def _short(tag: str) -> str:
    """What no other tag is shortened to, and a file can be called."""
    return hashlib.blake2b(tag.encode(), digest_size=12).hexdigest()


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
        self._still_s = 0.0
        self._gave_up = False

    def recover(self) -> None:
        """Take what an earlier gateway moved, if it did."""
        if not self._path.exists():
            return
        self._open_file()
        while part := os.pread(self._file, _READ_BYTES, self._moved_bytes):
            self._take(part)
            self._moved_bytes = min(self._moved_bytes + len(part), self._keep_bytes)
            if self._dropped_bytes:
                break

    def _open_file(self) -> None:
        self._file = self._keeping.open(self._path)
        self.is_moved = True

    def _give_up(self) -> None:
        """The file cannot be written: read without one. A gateway that comes after a kill finds a part only."""
        self._gave_up = True
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> int:
        """The number of new bytes, -1 when there are none now. An end of file is not seen: the slot tells of ends."""
        if self._gave_up:
            return super()._read()
        if self._file >= 0:
            return self._move()
        data = self._keeping.look(self._descriptor)
        new = data[self._seen_bytes :]
        if new:
            self._take(new)
        self._seen_bytes = len(data)
        if len(data) > _MOST_LEFT_BYTES:
            self._begin_to_move()
        return len(new) or -1

    def _begin_to_move(self) -> None:
        """Move what was looked at, as far as it is kept. The code may have read its own pipe empty meanwhile."""
        try:
            self._open_file()
        except OSError:
            self._give_up()
        left = self._seen_bytes
        while left > 0 and (moved := self._take_out(left)) > 0:
            left -= moved

    def _take_out(self, most: int) -> int:
        """Take out of the pipe what was looked at, and keep it as far as there is room."""
        if self._room > 0 and not self._gave_up:
            moved = self._splice(most)
            if not self._gave_up:
                return moved
        try:
            dropped = len(os.read(self._descriptor, most))
        except BlockingIOError:
            return -1
        self._mark_dropped()
        return dropped

    def _splice(self, most: int) -> int:
        """Move from the pipe to the file; the number of bytes, 0 at the end, -1 when there is nothing now."""
        try:
            moved = os.splice(
                self._descriptor, self._file, min(self._room, most),
                offset_dst=self._moved_bytes, flags=os.SPLICE_F_NONBLOCK,
            )  # fmt: skip
        except BlockingIOError:
            return -1
        except OSError:
            self._give_up()
            return -1
        self._moved_bytes += moved
        return moved

    def _mark_dropped(self) -> None:
        """A byte beyond the cap tells whoever recovers the file that there was more."""
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, self._keep_bytes + 1)

    @property
    def _room(self) -> int:
        return self._keep_bytes - self._moved_bytes

    def _move(self) -> int:
        """Move what has come, and read it from the file; what is beyond the cap is dropped."""
        if self._room > 0:
            moved = self._splice(_READ_BYTES)
            if moved > 0:
                self._take(os.pread(self._file, moved, self._moved_bytes - moved))
            if not self._gave_up:
                return moved
        dropped = super()._read()
        if dropped > 0:
            self._mark_dropped()
        return dropped

    def _on_readable(self) -> None:
        if self._file >= 0 or self._gave_up:
            # The pipe is emptied each time, so that it tells when there is more.
            super()._on_readable()
            return
        # As long as something is left in the pipe it can be read: until it is moved this looks by the clock.
        self._unwatch()
        if self._read() > 0:
            self._pause_s, self._still_s = _SHORTEST_PAUSE_S, 0.0
        else:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._still_s += self._pause_s
            if self._still_s > _MOST_STILL_S:
                self._begin_to_move()
        self._rest(self._pause_s)

    def finish(self) -> None:
        """Look at what is left, and leave it there."""
        if not self._open:
            return
        self._unwatch()
        left = LARGEST_PIPE_BYTES
        while left > 0 and (length := self._read()) > 0:
            left -= length
        self._open = False
        os.close(self._descriptor)
        self._close_file()
        self._let_go()


class Spool:
    """Makes the streams of an environment's execution that a later gateway may take up by its tag."""

    def __init__(self, keeping: Keeping, environment_id: str, tag: str) -> None:
        self._keeping = keeping
        self._environment_id = environment_id
        self._tag = tag
        self._streams: list[KeptOutputStream] = []

    def stream(
        self, name: str, descriptor: int, keep_bytes: int, drop_bytes: int, on_flood: Callable[[], None]
    ) -> KeptOutputStream:
        """The stream of this name."""
        path = self._keeping.path(self._environment_id, self._tag, name)
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
            self._keeping.forget(self._environment_id, self._tag)
