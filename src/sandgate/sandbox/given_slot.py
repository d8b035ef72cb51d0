"""The gateway's side of a slot that no descriptor can come out of: each child is given ends that are made here."""

import asyncio
import socket
from collections.abc import Callable, Mapping

from sandgate.sandbox.child_ends import open_child, without_rights
from sandgate.sandbox.execution import WaitingChild
from sandgate.sandbox.offer import Offer, make_offer
from sandgate.sandbox.slot import Running, Slot
from sandgate_agent import wire

_RETRY_S = 0.02
# When a whole container ends, the reason comes from the launcher, after the ends of its channels.
_LAST_WORD_S = 2.0


class GivenSlot(Slot):
    """See :class:`Slot`. The next child is asked for from here, so that nothing has to be held back inside."""

    def __init__(
        self, control: socket.socket, on_ready: Callable[[Slot], None], on_lost: Callable[[Slot], None], place: int = 0
    ) -> None:
        super().__init__(control, on_ready, on_lost, place)
        self._offered: Offer | None = None
        self._losing: asyncio.TimerHandle | None = None
        # A slot that is adopted, or resumed, is told that first.
        asyncio.get_running_loop().call_soon(self._offer)

    def _offer(self) -> None:
        """Ask for the next child, unless there is one, or one that runs, or one that was asked for."""
        busy = self._child or self._running or self._offered or self._losing or self._is_resetting
        if busy or self._held or self._control.fileno() < 0:
            return
        try:
            self._offered = make_offer(self._control, self._number + 1)
        except OSError:
            # No descriptors to be had now, or the slot is gone, which is about to be noticed.
            asyncio.get_running_loop().call_later(_RETRY_S, self._offer)

    def take_up(self, ends: list[int]) -> None:
        """The launcher has asked for the first child already: these are its ends. Raises ``WireError``."""
        child = open_child(1, ends)
        self._offered = Offer(child.channel, child.stdout, child.stderr)

    def _take_child(self, number: int, received: list[int]) -> WaitingChild:
        if received or self._offered is None:
            raise wire.WireError("a child that was not asked for")
        offer, self._offered = self._offered, None
        return WaitingChild(number, without_rights(offer.channel.detach()), offer.stdout, offer.stderr)

    def _tell_hold(self, number: int) -> None:
        """Nothing comes that is not asked for."""

    def _tell_next(self) -> None:
        self._offer()

    def _on_message(self, message: bytes, received: list[int]) -> None:
        super()._on_message(message, received)
        self._offer()

    async def reset(self, limit_s: float) -> None:
        """See :class:`Slot`."""
        self._drop()
        await super().reset(limit_s)
        self._offer()

    async def resume(self, left: Mapping[int, Running], limit_s: float) -> None:
        """See :class:`Slot`."""
        self._drop()
        await super().resume(left, limit_s)

    def _drop(self) -> None:
        if self._offered is not None:
            self._offered.close()
            self._offered = None

    def _lose(self) -> None:
        """Give the reason for the end some time to come."""
        loop = asyncio.get_running_loop()
        if self._losing is None and self._control.fileno() >= 0:
            loop.remove_reader(self._control.fileno())
            self._losing = loop.call_later(_LAST_WORD_S, super()._lose)

    def close(self) -> bool:
        """See :class:`Slot`."""
        self._drop()
        if self._losing is not None:
            self._losing.cancel()
        return super().close()
