"""What is said on the channel of a session, by the host and by the interpreter that stays.

The host sends cells, framed as code is for any child (see ``wire.pack_code``): the options of a cell are an object.
Those with a ``mark`` ask for nothing but to have it said back, those with ``taken`` say how many results of a cell were
taken, those with ``missed`` whether an interrupt that came before a cell was for it. What comes from inside is frames,
each a kind, a length and so many bytes. All of it is hostile to the host, which counts and bounds them.
"""

import struct
from typing import Dict, List, Tuple

from sandgate_agent.wire import WireError

_FRAME = struct.Struct("!cI")
FRAME_HEADER_BYTES = _FRAME.size

# The interpreter waits for its first cell.
READY = b"R"
# Something to show: a bundle of types and texts.
RESULT = b"V"
# An interrupt came before the cell had begun: was it for this one? Shells have begun, and wait for no answer.
MISSED = b"I"
# The cell has ended; how, as JSON.
DONE = b"D"
# A mark of the host's, said back, and how many cells there were.
MARK = b"M"

# The longest that the end of a cell may be.
DONE_LIMIT = 128 * 1024
MARK_BYTES = 16
_COUNT = struct.Struct("!Q")
MARK_LIMIT = MARK_BYTES + _COUNT.size
MOST_TYPES = 32
LONGEST_TYPE = 127
# How much JSON one cell may show, which has to be looked at to be believed, and how deep it may go.
JSON_LIMIT = 256 * 1024
DEEPEST_JSON = 64

_PART = struct.Struct("!BI")


def pack_frame(kind: bytes, body: bytes) -> bytes:
    """One frame."""
    return _FRAME.pack(kind, len(body)) + body


def parse_frame_header(header: bytes) -> Tuple[bytes, int]:
    """The kind, and how many bytes follow."""
    kind, length = _FRAME.unpack(header)
    return kind, length


def pack_mark(mark: bytes, cells: int) -> bytes:
    """The answer to a mark."""
    return pack_frame(MARK, mark + _COUNT.pack(cells))


def begin_of_mark(mark: bytes) -> bytes:
    """How the answer to a mark begins."""
    return _FRAME.pack(MARK, MARK_LIMIT) + mark


def parse_mark(body: bytes) -> int:
    """How many cells there were. Raises ``WireError``."""
    if len(body) != MARK_LIMIT:
        raise WireError("a mark has a strange length")
    return int(_COUNT.unpack_from(body, MARK_BYTES)[0]) & (2**53 - 1)


def is_json(kind: str) -> bool:
    """Whether the text of a type is JSON."""
    return kind == "application/json" or kind.endswith("+json")


def pack_bundle(parts: List[Tuple[bytes, bytes]]) -> bytes:
    """Types, in ASCII, and their texts in UTF-8; of bytes as base64."""
    return b"".join(_PART.pack(len(kind), len(text)) + kind + text for kind, text in parts)


def measure_part(kind: bytes, text: bytes) -> int:
    """How long a part of a bundle is."""
    return _PART.size + len(kind) + len(text)


def parse_bundle(body: bytes) -> Dict[str, str]:
    """The texts by their types; those of JSON are not looked at. Raises ``WireError``."""
    bundle: Dict[str, str] = {}
    place = 0
    try:
        while place < len(body):
            kind_length, length = _PART.unpack_from(body, place)
            begin = place + _PART.size + kind_length
            kind, text = body[place + _PART.size : begin], body[begin : begin + length]
            place = begin + length
            if len(text) != length or not 0 < kind_length <= LONGEST_TYPE or len(bundle) >= MOST_TYPES:
                raise WireError("a bundle is cut off, or too many")
            bundle[kind.decode("ascii")] = text.decode("utf-8")
    except (struct.error, UnicodeDecodeError) as error:
        raise WireError("expected a bundle: {}".format(error)) from None
    if not bundle:
        raise WireError("a bundle is empty")
    return bundle
