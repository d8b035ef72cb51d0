"""Unpacks an archive of any form: tar, tar.gz or zip."""

import os
import zlib
from typing import Any, Callable, Dict, Iterator, Optional

from sandgate_agent.file_worker import OperationRefused, Worker
from sandgate_agent.laying import INVALID, Caps
from sandgate_agent.unpacking import Unpacker, discard, home_of
from sandgate_agent.untar import untar
from sandgate_agent.unzip import unzip

_PIECE_BYTES = 256 * 1024


def _expanded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What is in a gzip file, or in several one behind the other. Raises ``OperationRefused``."""
    rest = b""
    while True:
        engine = zlib.decompressobj(31)
        if not rest:
            rest = next(pieces, b"")
            if not rest.strip(b"\0"):
                return
        while not engine.eof:
            try:
                part = engine.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise OperationRefused(INVALID, "it is no gzip file, or a broken one: {}".format(error)) from None
            if part:
                yield part
            rest = engine.unconsumed_tail or (b"" if engine.eof else next(pieces, b""))
            if not rest and not engine.eof:
                raise OperationRefused(INVALID, "it ends too soon")
        rest = engine.unused_data.lstrip(b"\0")


_FORMATS: Dict[str, Callable[[Iterator[bytes], Unpacker, Caps], None]] = {
    "tar": untar,
    "tar.gz": lambda pieces, unpacker, caps: untar(_expanded(pieces), unpacker, caps),
    "zip": unzip,
}


def _unpack(worker: Worker, path: str, form: str, staging: str, **caps: Any) -> None:
    most = Caps(**caps)
    unpacker: Optional[Unpacker] = None
    pieces = worker.pieces()
    try:
        unpacker = Unpacker(path, staging, most)
        _FORMATS[form](pieces, unpacker, most)
        # What comes behind the archive is nothing, or padding; and that it has come whole is known at its end only.
        for _piece in pieces:
            continue
        worker.answer(unpacker.finish())
    except BaseException:
        if unpacker is not None:
            unpacker.drop()
        raise
    finally:
        if unpacker is not None:
            unpacker.close()


def _discard(worker: Worker, path: str, staging: str) -> None:
    """Remove what an operation has left that was killed."""
    target = os.path.realpath(path)
    for home in {home_of(target), os.path.dirname(target)}:
        discard(os.path.join(home, staging))
    worker.answer({})


OPERATIONS: Dict[str, Callable[..., None]] = {"unpack": _unpack, "discard": _discard}
