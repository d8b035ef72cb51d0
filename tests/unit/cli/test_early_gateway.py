"""The gateway's process, begun before it is known what it serves."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from sandgate.cli.early_gateway import EarlyGateway


def _nothing() -> None:
    pass


def _code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_serves_what_it_is_told_with_descriptors_of_its_own() -> None:
    """However long the order is; and ends with the code that serving has."""
    told, tell = os.pipe()

    def serve(order: tuple[str, int], descriptors: Sequence[int]) -> int:
        text, code = order
        handed_on = [each for each in descriptors if os.get_inheritable(each)]
        os.write(descriptors[1], f"{len(text)} {len(descriptors)} {len(handed_on)} {os.getpid()}".encode())
        return code

    with EarlyGateway(_nothing, serve) as early:
        pid = early.order(("a" * 1_000_000, 7), [told, tell])
    os.close(tell)
    assert _code_of(pid) == 7
    assert os.read(told, 100) == f"1000000 2 0 {pid}".encode()
    os.close(told)


def test_without_an_order_it_ends_with_the_block() -> None:
    """Also when it has not come to wait yet, and when the block fails."""
    told, tell = os.pipe()
    begun: list[int] = []

    def prepare() -> None:
        os.write(tell, str(os.getpid()).encode())
        signal.pause()

    def refuse() -> None:
        with EarlyGateway(prepare, lambda _order, _descriptors: 0):
            begun.append(int(os.read(told, 20)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        refuse()
    with pytest.raises(ChildProcessError):
        os.waitpid(begun[0], os.WNOHANG)
    os.close(told)
    os.close(tell)


def test_what_goes_wrong_is_said_and_is_for_whoever_waits(capfd: pytest.CaptureFixture[str]) -> None:
    """Before there is an order, as well as in serving."""

    def fail(*_arguments: object) -> int:
        raise ValueError("no such thing")

    with EarlyGateway(fail, lambda _order, _descriptors: 0) as early:
        assert _code_of(early.order("order", [])) == 1
    with EarlyGateway(_nothing, fail) as early:
        assert _code_of(early.order("order", [])) == 1
    assert capfd.readouterr().err.count("ValueError: no such thing") == 2


def test_it_dies_with_whoever_began_it() -> None:
    """Nobody else knows of it."""
    program = """
import os, signal, sys
from sandgate.cli.early_gateway import EarlyGateway
EarlyGateway(lambda: os.write(1, b"here"), lambda order, descriptors: 0)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as began:
        assert began.stdout is not None
        assert began.stdout.read(4) == b"here"
        began.kill()
        # The end of what both could write to.
        assert began.stdout.read() == b""
