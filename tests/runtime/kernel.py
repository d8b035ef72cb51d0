"""The kernel's calls by name, and what a filter's program says to each, without making them."""

import ctypes
import errno
import struct
from collections.abc import Mapping, Sequence
from functools import cache

from sandgate.sandbox.seccomp import find_library

ALLOW = 0x7FFF0000
KILL = 0x80000000
REFUSE = 0x00050000 | errno.EPERM
UNKNOWN = 0x00050000 | errno.ENOSYS
# Beyond the highest number that any kernel of today has.
_LAST_NUMBER = 700
# Source: struct seccomp_data in include/uapi/linux/seccomp.h
_ARGUMENTS_OFFSET = 16


@cache
def numbers() -> Mapping[str, int]:
    """The number of every call that libseccomp knows on this processor."""
    library = ctypes.CDLL(find_library())
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    free = ctypes.CDLL(None).free
    found = {}
    for number in range(_LAST_NUMBER):
        name = library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(library.seccomp_arch_native()), number)
        if name:
            found[ctypes.string_at(name).decode()] = number
            free(ctypes.c_void_p(name))
    return found


@cache
def architecture() -> int:
    """This processor, as the kernel names it to a filter."""
    return ctypes.c_uint32(ctypes.CDLL(find_library()).seccomp_arch_native()).value


def judge(program: bytes, number: int, *arguments: int, arch: int | None = None) -> int:
    """What a filter answers to a call.

    Source: include/uapi/linux/bpf_common.h and seccomp.h; only the instructions that such filters are made of.
    """
    return _follow(program, number, arguments, arch)[0]


def looks_at_arguments(program: bytes, number: int) -> bool:
    """Whether a filter's answer to a call may depend on its arguments."""
    return any(offset >= _ARGUMENTS_OFFSET for offset in _follow(program, number, (), None)[1])


def _follow(program: bytes, number: int, arguments: Sequence[int], arch: int | None) -> tuple[int, set[int]]:
    """The answer, and what of the call was looked at on the way to it."""
    full = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", number, architecture() if arch is None else arch, 0, *(a % 2**64 for a in full))
    instructions = list(struct.iter_unpack("=HBBI", program))
    looked_at: set[int] = set()
    place = accumulator = 0
    while True:
        code, on_true, on_false, constant = instructions[place]
        place += 1
        kind = code & 0x07
        if kind == 0x00:
            accumulator = struct.unpack_from("=I", data, constant)[0]
            looked_at.add(constant)
        elif kind == 0x04:
            assert code == 0x54, f"arithmetic {code:#x}"
            accumulator &= constant
        elif kind == 0x06:
            return int(constant), looked_at
        elif code == 0x05:
            place += constant
        else:
            holds = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }[code]
            place += on_true if holds else on_false
