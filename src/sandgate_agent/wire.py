"""What is said between the host and the roles inside; the only module of this package that the host imports.

Everything that comes from inside is hostile: each message has one fixed length or a cap, and parsing one that
does not fit raises ``WireError`` and nothing else.

Channels
    launcher - zygote   SOCK_SEQPACKET: ``CLONE`` with JSON behind it and descriptors, ``CLONED`` with a pidfd
                        In a container of gVisor ``CLONE`` comes alone and is not answered; ``READY`` says that it
                        serves, and ``FREE`` has memory freed, which ``FREE`` with a number answers; ``LOOK`` asks
                        what the sandbox holds, which ``LOOK`` with it answers; ``RELAY`` with a descriptor has a relay
                        made; ``SHOW`` has slots see a volume, which ``SHOW`` with the number of an error answers
    launcher - relay    SOCK_SEQPACKET, in a container of gVisor: ``DIAL`` and ``LISTEN``, each with a descriptor, one
                        way; ``LISTEN`` with the port the other way. On the descriptor of a ``DIAL``, SOCK_STREAM,
                        ``READY`` comes before what the port says
    proxy - relay       SOCK_SEQPACKET: ``WAITS`` one way, a descriptor for it the other way
    launcher - forker   SOCK_SEQPACKET: ``GO`` one way, which waits for ``ENTERED`` the other way where the forker was
                        given files of control groups; then ``READY`` or an error text the other way, then closed
    gateway - forker    SOCK_SEQPACKET: ``KILL``, ``INTERRUPT``, ``RESET``, ``RESUME``, ``HOLD``, ``NEXT`` one way;
                        ``CHILD`` with three descriptors, ``EXITED``, ``INTERRUPT``, ``RESET``, ``RESUME`` the other
                        way. Out of a
                        container of gVisor no descriptor can be sent: there ``ENDS`` with three of them asks for a
                        child, and ``CHILD`` comes without any; there is no ``HOLD`` and no ``NEXT``
    gateway - child     SOCK_STREAM: the code one way; outputs, the report of an uncaught exception, and whether the
                        step left files, the other way
"""

import json
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

GO = b"G"
READY = b"R"
# Whoever was given files of control groups has written to them.
ENTERED = b"J"

# The longest datagram that is read from inside.
MESSAGE_LIMIT = 4096
# The report must fit a socket buffer whole: nobody reads it before the child is gone.
REPORT_LIMIT = 96 * 1024
# Characters. The end of a traceback says more than its beginning.
_NAME_LIMIT, _VALUE_LIMIT, _TRACEBACK_LIMIT = 256, 4096, 12_000

# Far beyond what anything can use, and within what every database and JSON parser counts to.
_LARGEST = 2**53

_MICRO = 1_000_000

_NUMBERED = struct.Struct("!cQ")
_EXITED = struct.Struct("!cQiQQQQQ")
_CODE = struct.Struct("!II")
_HELD = struct.Struct("!cqqq")

NUMBERED_BYTES = _NUMBERED.size
EXITED_BYTES = _EXITED.size
# For a forker, whose every call counts: buffer, offset, ``EXITED``, number, wait status, then seconds and microseconds
# in user mode and in system mode, and KiB.
pack_exited_into = _EXITED.pack_into
# A template's setup: the names of what it imports and shows.
SETUP_LIMIT = 64 * 1024

KILL = b"K"
# Send the child and those of its process group SIGINT; said back once that is done, or there is none.
INTERRUPT = b"I"
RESET = b"A"
# Of what runs keep only the children of these numbers, and say again how those of them ended that have.
RESUME = b"U"
# Fork no next child until told to; fork it.
HOLD = b"H"
NEXT = b"N"
# The next child's socket and pipes, where it is the gateway that makes them.
ENDS = b"E"
CHILD = b"C"
EXITED = b"X"
CLONE = b"Q"
CLONED = b"P"
FREE = b"F"
# What there was to be freed: nothing, the memory of the greediest process, or what nobody used any more.
NOTHING, OF_ONE, OF_NOBODY = range(3)
LOOK = b"O"
# Where no descriptor can be sent out: what carries bytes instead, to a port by IPv4 or IPv6 (times ``FAMILY``), or from
# a listener, at which somebody waits.
RELAY = b"L"
DIAL = b"D"
FAMILY = 2**16
LISTEN = b"B"
WAITS = b"W"
# Show every slot what was attached at a number, at the path behind it (times two, and one more for reading only); the
# number of the error why not, or 0.
SHOW = b"S"


class WireError(Exception):
    """A message that does not fit what was agreed."""


class Exited(NamedTuple):
    """How a child ended: its number and raw wait status.

    Then, with all that it left behind, microseconds of CPU, and the largest resident set of one process.
    """

    number: int
    wait_status: int
    user_us: int
    system_us: int
    peak_memory_bytes: int


def pack_numbered(kind: bytes, number: int) -> bytes:
    """A message that is a kind and a number."""
    return _NUMBERED.pack(kind, number)


def parse_numbered(message: bytes) -> Tuple[bytes, int]:
    """The kind and the number of a message."""
    try:
        kind, number = _NUMBERED.unpack(message)
    except struct.error as error:
        raise WireError("expected a kind and a number: {}".format(error)) from None
    return kind, number


def pack_exited(number: int, wait_status: int, user_us: int, system_us: int, peak_memory_bytes: int) -> bytes:
    """The message of a child's end; see :class:`Exited`."""
    times = *divmod(user_us, _MICRO), *divmod(system_us, _MICRO)
    return _EXITED.pack(EXITED, number, wait_status, *times, peak_memory_bytes // 1024)


def parse_exited(message: bytes) -> Exited:
    """How a child ended."""
    try:
        kind, number, wait_status, user_s, user_us, system_s, system_us, peak_kib = _EXITED.unpack(message)
    except struct.error as error:
        raise WireError("expected a child's end: {}".format(error)) from None
    if kind != EXITED:
        raise WireError("expected a child's end, got {!r}".format(kind))
    # As the kernel counts: the forker has nothing to do but to copy it.
    exited = Exited(number, wait_status, user_s * _MICRO + user_us, system_s * _MICRO + system_us, peak_kib * 1024)
    if max(exited.user_us, exited.system_us, exited.peak_memory_bytes) > _LARGEST:
        raise WireError("no child can have used that much")
    return exited


class Held(NamedTuple):
    """What a sandbox holds, as its own kernel tells: processes, bytes of its files, and files; None is not counted."""

    processes: int
    disk_bytes: int
    inodes: Optional[int]


def pack_held(processes: int, disk_bytes: int, inodes: Optional[int]) -> bytes:
    """The answer to ``LOOK``."""
    return _HELD.pack(LOOK, processes, disk_bytes, -1 if inodes is None else inodes)


def parse_held(message: bytes) -> Held:
    """What a sandbox holds."""
    try:
        kind, processes, disk_bytes, inodes = _HELD.unpack(message)
    except struct.error as error:
        raise WireError("expected what is held: {}".format(error)) from None
    if kind != LOOK or min(processes, disk_bytes, inodes + 1) < 0 or max(processes, disk_bytes, inodes) > _LARGEST:
        raise WireError("expected what is held, got {!r}".format(message))
    return Held(processes, disk_bytes, None if inodes < 0 else inodes)


# How many children one message asks for: the answer has to fit a datagram, with the ends of all.
MOST_RESUMED = 64
_NUMBER = struct.Struct("!Q")


def pack_resume(nonce: int, numbers: Sequence[int]) -> bytes:
    """The message of a gateway that takes up the children of these numbers; see ``RESUME``."""
    return pack_numbered(RESUME, nonce) + b"".join(map(_NUMBER.pack, numbers))


def parse_resume(message: bytes) -> Tuple[int, List[int]]:
    """The nonce and the numbers."""
    nonce = parse_numbered(message[:NUMBERED_BYTES])[1]
    try:
        return nonce, [number for (number,) in _NUMBER.iter_unpack(message[NUMBERED_BYTES:])]
    except struct.error as error:
        raise WireError("expected numbers: {}".format(error)) from None


def pack_resumed(nonce: int, number: int, ends: Sequence[bytes]) -> bytes:
    """The answer: the number of the last child that was made, and the messages of those that have ended."""
    return pack_numbered(RESUME, nonce) + _NUMBER.pack(number) + b"".join(ends)


def parse_resumed(message: bytes) -> Tuple[int, List[Exited]]:
    """The number and the ends."""
    try:
        (number,) = _NUMBER.unpack_from(message, NUMBERED_BYTES)
    except struct.error as error:
        raise WireError("expected a number: {}".format(error)) from None
    if number > _LARGEST:
        raise WireError("no slot has had so many children")
    rest = message[NUMBERED_BYTES + _NUMBER.size :]
    parts = [rest[start : start + _EXITED.size] for start in range(0, len(rest), _EXITED.size)]
    return number, [parse_exited(part) for part in parts]


def pack_code(code: bytes, options: Optional[Dict[str, Any]] = None) -> bytes:
    """What a child is given: options as JSON, and the code in UTF-8; behind it what ``options["around"]`` measures."""
    extra = json.dumps(options).encode() if options else b""
    return _CODE.pack(len(extra), len(code)) + extra + code


def pack_role(arguments: Dict[str, Any], modules: bytes = b"") -> bytes:
    """What a child is given that is to work on files instead of running code, and the modules that it needs for it."""
    options = ROLE + json.dumps(arguments).encode()
    return _CODE.pack(len(options), len(modules)) + options + modules


def pack_process(request: Dict[str, Any]) -> bytes:
    """What a child is given that is to stand by a command."""
    options = PROCESS + json.dumps(request).encode()
    return _CODE.pack(len(options), 0) + options


def pack_session(arguments: Dict[str, Any]) -> bytes:
    """What a child is given that is to run one piece of code after another; see ``session_wire``."""
    options = SESSION + json.dumps(arguments).encode()
    return _CODE.pack(len(options), 0) + options


# Before the options of a child that runs no code at once; those of code are an object, or nothing.
ROLE = b"files:"
SESSION = b"session:"
PROCESS = b"process:"
CODE_HEADER_BYTES = _CODE.size
unpack_code_header = _CODE.unpack
"""Of bytes, how many bytes of options and of code follow."""


def pack_report(name: str, value: str, traceback: str) -> bytes:
    """An uncaught exception, cut so that it fits ``REPORT_LIMIT`` whatever its text is."""
    # A character takes six bytes at most.
    report = {"name": name[:_NAME_LIMIT], "value": value[:_VALUE_LIMIT], "traceback": traceback[-_TRACEBACK_LIMIT:]}
    return json.dumps(report, ensure_ascii=False).encode("utf-8", "replace")


_WORD = struct.Struct("!cI")
WORD_BYTES = _WORD.size
# What a child that stands by a command is told: bytes of input behind it, their end, rows and columns, a signal.
INPUT, INPUT_END, RESIZE, SIGNAL = b"I", b"E", b"W", b"S"
# What it tells: the command runs, so many bytes of input were taken, no more will be. A report is told as it is.
BEGUN, TAKEN, INPUT_CLOSED = b"B", b"T", b"C"
# How much input may be on its way to a command without having been taken.
INPUT_WINDOW = 64 * 1024


def pack_word(kind: bytes, number: int) -> bytes:
    """A word between the gateway and a child that stands by a command."""
    return _WORD.pack(kind, number)


def parse_word(word: bytes) -> Tuple[bytes, int]:
    """Its kind and its number."""
    kind, number = _WORD.unpack(word)
    return kind, number


OUTPUTS_LIMIT = 256 * 1024
_OUTPUTS = struct.Struct("!cI")
_OUTPUTS_KIND = b"O"


def pack_outputs(outputs: bytes) -> bytes:
    """What a step hands on, as JSON; it comes before a report."""
    return _OUTPUTS.pack(_OUTPUTS_KIND, len(outputs)) + outputs


def split_outputs(message: bytes) -> Tuple[Optional[bytes], bytes]:
    """The outputs, or None when there are none whole and within the limit, and the report after them."""
    if message[:1] != _OUTPUTS_KIND or len(message) < _OUTPUTS.size:
        return None, message
    length = _OUTPUTS.unpack_from(message)[1]
    end = _OUTPUTS.size + length
    if length > OUTPUTS_LIMIT or len(message) < end:
        return None, b""
    return message[_OUTPUTS.size : end], message[end:]


# The last thing that the child of a step says: no other message ends in one of these.
LEFT_FILES = b"\x01"
LEFT_NOTHING = b"\x02"


def split_ending(message: bytes) -> Tuple[bytes, Optional[bool]]:
    """What the child said before its last word, and whether it left files; None when it did not get to say so."""
    ending = message[-1:]
    if ending in (LEFT_FILES, LEFT_NOTHING):
        return message[:-1], ending == LEFT_FILES
    return message, None


# The longest that a child may have to say.
ANSWER_LIMIT = _OUTPUTS.size + OUTPUTS_LIMIT + REPORT_LIMIT + 1


def parse_report(message: bytes) -> Optional[Tuple[str, str, str]]:
    """Name, value and traceback of an uncaught exception; None when there is none, or none that can be read."""
    if not message or len(message) > REPORT_LIMIT:
        return None
    try:
        return read_report(json.loads(message))
    except (ValueError, RecursionError):
        return None


def read_report(report: Any) -> Optional[Tuple[str, str, str]]:
    """See :func:`parse_report`, of the value of JSON."""
    try:
        name, value, traceback = report["name"], report["value"], report["traceback"]
    except (KeyError, TypeError):
        return None
    if not all(isinstance(text, str) for text in (name, value, traceback)):
        return None
    # Cut again: code can write reports of its own.
    cut = name[:_NAME_LIMIT], value[:_VALUE_LIMIT], traceback[-_TRACEBACK_LIMIT:]
    return _printable(cut[0]), _printable(cut[1]), _printable(cut[2])


def _printable(text: str) -> str:
    """The text with lone surrogates, which JSON lets through, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
