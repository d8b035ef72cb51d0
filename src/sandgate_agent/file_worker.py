"""Another role of a child: instead of code it runs one operation on files, with the powers that code has, and ends.

Whatever a path leads through, links, races and all, is within the walls: nobody outside ever follows one. What it
answers is hostile to the host all the same.

It writes to stdout one record, the length of a JSON text in 4 bytes and the text, and behind it the bytes of a file, if
it was asked for one, or further records, if it has found many things, up to an empty one. What is written to a file
comes over the channel in pieces, each with its length in 4 bytes before it, and ends with an empty one: an end without
that is no end of the file.

Operations that are seldom asked for come with their modules, as text: what is loaded here is loaded for every child.
"""

import errno
import json
import os
import stat
import struct
import sys
import types
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from sandgate_agent import file_changes
from sandgate_agent.file_changes import (
    MOST_ENTRIES,
    PIECE_BYTES,
    READ_FLAGS,
    Message,
    describe,
    find_status,
    write_all,
)

_LENGTH = struct.Struct("!I")
_OFFSET = struct.Struct("!Q")
# Gathered for one record, if there is more than one thing to tell.
_RECORD_BYTES = 16 * 1024


class OperationRefused(Exception):
    """An operation cannot be done for a reason that the kernel has no number for: ``code`` names it."""

    def __init__(self, code: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path


class Worker:
    """One operation. ``channel`` is where the host speaks, ``out`` where it is answered."""

    def __init__(self, channel: int, out: int) -> None:
        self.channel = channel
        self._out = out

    def answer(self, answer: Message) -> None:
        """Say how it went."""
        text = json.dumps(answer).encode()
        self.send(text)

    def send(self, piece: bytes) -> None:
        """A piece of bytes with its length before it."""
        write_all(self._out, _LENGTH.pack(len(piece)) + piece)

    def send_all(self, found: Iterable[Message]) -> None:
        """Things in records that are none of them long, up to an empty one."""
        for record in self.group(found):
            self.send(record)
        self.send(b"")

    @staticmethod
    def group(found: Iterable[Message]) -> Iterator[bytes]:
        """Things as records that are none of them long."""
        texts: List[str] = []
        size = 0
        for text in map(json.dumps, found):
            if size + len(text) > _RECORD_BYTES and texts:
                yield "[{}]".format(",".join(texts)).encode()
                texts, size = [], 0
            texts.append(text)
            size += len(text)
        if texts:
            yield "[{}]".format(",".join(texts)).encode()

    def run(self, operation: str, arguments: Dict[str, Any], more: "Dict[str, Operation]") -> None:
        """Do it. Raises ``OSError``, ``OperationRefused``."""
        if operation in more:
            more[operation](self, **arguments)
        elif operation == "read":
            self._read(arguments["path"])
        elif operation == "write":
            self._write(**arguments)
        elif operation == "list":
            self._list(**arguments)
        else:
            self.answer(file_changes.OPERATIONS[operation](**arguments))

    def _read(self, path: str) -> None:
        descriptor = os.open(path, READ_FLAGS)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENODEV, "it is no regular file", path)
        self.answer({"entry": describe(path, status)})
        (offset,) = _OFFSET.unpack(self._receive(_OFFSET.size))
        os.lseek(descriptor, offset, os.SEEK_SET)
        left = status.st_size - offset
        while left > 0:
            piece = os.read(descriptor, min(left, PIECE_BYTES))
            if not piece:
                return
            write_all(self._out, piece)
            left -= len(piece)

    def _write(self, path: str, overwrite: bool, mode: Optional[int]) -> None:
        target = os.path.realpath(path)
        there = find_status(target)
        if there is not None and not stat.S_ISREG(there.st_mode):
            number = errno.EISDIR if stat.S_ISDIR(there.st_mode) else errno.ENODEV
            raise OSError(number, os.strerror(number), path)
        if there is not None and not overwrite:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        new = NewFile(folder)
        try:
            for piece in self.pieces():
                write_all(new.descriptor, piece)
            if mode is None:
                mode = 0o644 if there is None else stat.S_IMODE(there.st_mode)
            os.fchmod(new.descriptor, mode)
            new.put(target, overwrite)
        except BaseException:
            new.drop()
            raise
        self.answer({"entry": describe(path, os.stat(target))})

    def _list(self, path: str, after: str, limit: int) -> None:
        names = _names_after(path, after)
        self.answer({"last": names[limit - 1] if len(names) > limit else None})
        self.send_all(_look_at_all(name if path == "." else os.path.join(path, name) for name in names[:limit]))

    def pieces(self) -> Iterator[bytes]:
        """What the host sends, to its end. Raises ``EOFError`` when it breaks off."""
        while True:
            (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
            if not length:
                return
            while length:
                piece = os.read(self.channel, min(length, PIECE_BYTES))
                if not piece:
                    raise EOFError
                length -= len(piece)
                yield piece

    def _receive(self, length: int) -> bytes:
        whole = b""
        while len(whole) < length:
            part = os.read(self.channel, length - len(whole))
            if not part:
                raise EOFError
            whole += part
        return whole


class NewFile:
    """A file without a name until it is whole, where the file system has such; otherwise with an odd one."""

    def __init__(self, folder: str) -> None:
        self._name = "{}/.upload-{}".format(folder.rstrip("/"), os.urandom(8).hex())
        self._has_name = False
        try:
            self.descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            self._make_named()

    def _make_named(self) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self._name, flags, 0o600)
        self._has_name = True

    def put(self, target: str, overwrite: bool) -> None:
        """Give it its name: in one step, whatever was there."""
        if not self._has_name:
            # With a folder, which the whole path makes nothing of, links are followed; without one they are not.
            os.link("/proc/self/fd/{}".format(self.descriptor), self._name, src_dir_fd=0, follow_symlinks=True)
            self._has_name = True
        if overwrite:
            os.rename(self._name, target)
        else:
            os.link(self._name, target)
            os.unlink(self._name)
        self._has_name = False

    def drop(self) -> None:
        """There is no such file."""
        os.close(self.descriptor)
        if self._has_name:
            os.unlink(self._name)


def _names_after(path: str, after: str) -> List[str]:
    """What is in a folder, by name, behind a name."""
    names: List[str] = []
    with os.scandir(path) as found:
        for entry in found:
            if len(names) >= MOST_ENTRIES:
                raise OSError(errno.EOVERFLOW, "it has more than {} entries".format(MOST_ENTRIES), path)
            if entry.name > after:
                names.append(entry.name)
    return sorted(names)


def _look_at_all(paths: Iterable[str]) -> Iterator[Message]:
    for path in paths:
        status = find_status(path)
        if status is not None:
            yield describe(path, status)


Operation = Callable[..., None]
"""Of a module that comes along; it is given the worker and its arguments, and answers by itself."""


def _load(modules: Dict[str, str]) -> Dict[str, Operation]:
    """The operations of modules, of which the later ones may import the earlier, and all of them this one."""
    package = sys.modules["sandgate_agent"] = types.ModuleType("sandgate_agent")
    operations: Dict[str, Operation] = {}
    known = types.ModuleType("sandgate_agent.file_worker")
    known.__dict__.update(globals())
    sys.modules.update({"sandgate_agent.file_worker": known, "sandgate_agent.file_changes": file_changes})
    for name, text in modules.items():
        module = types.ModuleType("sandgate_agent." + name)
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        exec(compile(text, name + ".py", "exec", 0, True), module.__dict__)
        operations.update(module.__dict__.get("OPERATIONS", {}))
    return operations


def run(request: Dict[str, Any], channel: int, out: int, modules: bytes = b"") -> int:
    """Do what is asked and answer it; the exit code. ``modules`` are texts by name, in JSON."""
    worker = Worker(channel, out)
    try:
        more = _load(json.loads(modules)) if modules else {}
        worker.run(request["operation"], request["arguments"], more)
    except OperationRefused as refusal:
        worker.answer({"error": refusal.code, "message": refusal.message, "path": refusal.path})
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        worker.answer({"error": name, "message": error.strerror or "", "path": os.fspath(error.filename or "")})
    except EOFError:
        # The host has let go in the middle; nothing was changed.
        return 1
    return 0
