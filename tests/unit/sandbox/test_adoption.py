"""What an earlier gateway's time has to do with what goes on in this one's."""

import asyncio

from sandgate.sandbox.adoption import Adoption
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.slot import Slot
from tests.unit.sandbox.conftest import Peer


class _Adopting(Adoption):
    def __init__(self, peer: Peer, kernel: KernelKills) -> None:
        self._kernel_kills = kernel
        self._left = {}
        self._first = Slot(peer.control, lambda _slot: None, lambda _slot: None)
        self._slots = [self._first]


async def test_what_was_killed_before_is_laid_to_nobody_that_fails(peer: Peer) -> None:
    """The earlier gateway knew whose it was; what is killed from here on is laid to whom it may be."""
    kills = 3

    async def count() -> int:
        return kills

    kernel = KernelKills(count)
    adopting = _Adopting(peer, kernel)
    adopted = asyncio.ensure_future(adopting.adopt())
    await asyncio.sleep(0)
    peer.send(peer.heard(), [])
    await adopted
    assert not await kernel.have_hurt(0)
    assert await kernel.have_killed(0), "that one was killed is known of itself"
    kills = 4
    assert await kernel.have_hurt(0)
    adopting._first.close()
