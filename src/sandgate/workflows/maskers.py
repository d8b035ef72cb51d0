"""Makes what masks secrets, and lets it work where it holds up nobody else."""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar
from weakref import WeakValueDictionary

from sandgate.workflows.masking import Masker

# Characters: of secrets to be made a masker of, and of a text to be masked. More of them is for another thread, whose
# work the event loop breaks into whenever it has something to do.
_FEW_OF_SECRETS, _FEW_OF_TEXT = 1024, 16_384

ResultT = TypeVar("ResultT")


class Maskers:
    """One for all attempts that have the same secrets at a time; nothing is kept of secrets that no attempt has."""

    def __init__(self) -> None:
        self._kept: WeakValueDictionary[frozenset[str], Masker] = WeakValueDictionary()
        self._making: dict[frozenset[str], asyncio.Task[Masker]] = {}

    async def get(self, secrets: Collection[str]) -> Masker:
        """The masker of these secrets."""
        wanted = frozenset(secrets)
        if sum(map(len, wanted)) <= _FEW_OF_SECRETS:
            return Masker(wanted)
        masker = self._kept.get(wanted)
        if masker is not None:
            return masker
        making = self._making.get(wanted)
        if making is None:
            making = asyncio.get_running_loop().create_task(self._make(wanted), name="make a masker")
            self._making[wanted] = making
        # Others may wait for it too.
        return await asyncio.shield(making)

    async def _make(self, wanted: frozenset[str]) -> Masker:
        try:
            masker = self._kept[wanted] = await asyncio.to_thread(Masker, wanted)
            return masker
        finally:
            del self._making[wanted]


async def mask_apart(masker: Masker, size: int, work: Callable[[], ResultT]) -> ResultT:
    """What ``work`` masks, ``size`` characters or so: in another thread if that takes long."""
    if not masker or size <= _FEW_OF_TEXT:
        return work()
    return await asyncio.to_thread(work)
