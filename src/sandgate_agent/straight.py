"""A child from its fork to its end, in one function: whatever is nothing but code runs in here.

Each module, attribute and function that a forked interpreter goes through lies on a page of its own, and to copy that
costs more than what is done there. So all is found beforehand, and local. What comes with options, and what goes
wrong, is :mod:`sandgate_agent.child`'s.
"""

import _thread
import atexit
import gc
import linecache
import os
import sys
import threading
import types
from typing import Any, Callable, NamedTuple, Sequence

from sandgate_agent import spawning, wire
from sandgate_agent.calls import Call

# Of the code, in tracebacks.
NAME = "<code>"
# The last descriptor of the smallest table a process has: out of the way of what the code opens.
CHANNEL = 63

Child = Callable[[Sequence[Call]], None]
"""Runs as one execution, after the calls by which it gets its place."""


class Around(NamedTuple):
    """What is not the same in a rehearsal."""

    read: Callable[[int, int], bytes] = os.read
    count_threads: Callable[[], int] = _thread._count
    run_exit_functions: Callable[[], None] = atexit._run_exitfuncs
    leave: Callable[[int], object] = os._exit


class Parts(NamedTuple):
    """What there is beside the straight way."""

    # The exit code of a child that could not do its work.
    broken: int
    # Undo what all forks would have in common.
    reseeding: Sequence[Callable[[], object]]
    # Below 0 when the user has installed no packages.
    look_for_packages: Call
    find_packages: Callable[[], None]
    # The call by which it should have got its place has failed.
    fail_settling: Callable[[Call], None]
    # So many bytes, of which these are there already.
    complete: Callable[[int, bytes], bytes]
    # What comes with options of this length, and this much code.
    begin: Callable[[int, int], Any]
    # The exit code after an exception, by the process id, and whether the code could be compiled.
    end: Callable[[BaseException, int, bool], int]
    say: Callable[[BaseException], None]


def make(parts: Parts, around: Around) -> Child:
    """What every child runs."""
    broken, reseeding, look_for_packages, find_packages, fail_settling, complete, begin, end, say = parts
    name, channel, header_bytes, unpack = NAME, CHANNEL, wire.CODE_HEADER_BYTES, wire.unpack_code_header
    known, modules, builtins, lines_of = spawning.known, sys.modules, sys.modules["builtins"], linecache.cache
    enable, get_pid, compile_, execute, split = gc.enable, os.getpid, compile, exec, str.splitlines
    arguments, make_module, read, finish = sys.argv, types.ModuleType, around.read, _make_finish(around)

    def run(settling: Sequence[Call]) -> None:
        for call in settling:
            if call() < 0:
                fail_settling(call)
        code, other = broken, None
        try:
            for reseed in reseeding:
                reseed()
            enable()
            header = read(channel, header_bytes)
            if len(header) < header_bytes:
                header = complete(header_bytes, header)
            options_length, length = unpack(header)
            if options_length:
                other = begin(options_length, length)
                code = other.run()
                return
            source = read(channel, length) if length else b""
            if len(source) < length:
                source = complete(length, source)
            pid, path = get_pid(), arguments[0]
            known[0], known[1] = source, path
            compiled: Any = None
            try:
                lines_of[name] = (length, None, split(str(source, "utf-8", "replace") + "\n", True), name)
                if look_for_packages() >= 0:
                    find_packages()
                compiled = compile_(source, name, "exec", 0, True)
                module: Any = make_module("__main__")
                variables: Any = module.__dict__
                variables["__builtins__"], variables["__file__"], variables["__cached__"] = builtins, path, None
                modules["__main__"] = module
                execute(compiled, variables)
                code = 0
            except BaseException as error:
                code = end(error, pid, compiled is not None)
            finally:
                # The collector is to find that nothing leads to them any more.
                compiled = module = variables = None
        except BaseException as error:
            say(error)
        finally:
            finish(code, other)

    return run


def _make_finish(around: Around) -> Callable[[int, Any], None]:
    """What ends as an interpreter does: threads joined, exit functions run, objects of the code's own finalized."""
    count_threads, run_exit_functions, leave = around[1:]
    collect, modules, written, streams = gc.collect, sys.modules, spawning.written, sys.__dict__

    def finish(code: int, other: Any) -> None:
        try:
            if count_threads():
                threading._shutdown()  # type: ignore[attr-defined]
            run_exit_functions()
            if written:
                spawning.clean_up()
            for is_first in (True, False):
                for each in ("stdout", "stderr"):
                    try:
                        streams[each].flush()
                    except Exception:
                        continue
                if is_first:
                    # What has to say something when it is finalized is heard by the second round.
                    modules.pop("__main__", None)
                    collect()
            if other is not None:
                other.tell_files()
        finally:
            leave(code)

    return finish
