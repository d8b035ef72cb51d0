"""What the kernel counts, and what stays known of it."""

import os

import pytest

from sandgate.sandbox.kernel_kills import KernelKills


async def test_a_counter_whose_group_is_gone() -> None:
    """What was known stays so."""
    counter = os.memfd_create("counter")
    kernel = KernelKills(_unasked, os.dup(counter))
    os.pwrite(counter, b"low 1\noom_kill 3\noom_group_kill 0\n", 0)
    assert kernel.look() == 3
    os.ftruncate(counter, 0)
    os.close(counter)
    assert await kernel.count() == 3
    kernel.close()
    assert (kernel.look(), kernel.is_exact) == (3, False)


async def _unasked() -> int:
    pytest.fail("nobody need be asked")
