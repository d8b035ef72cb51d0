"""Answers of the database that may be a second old."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from sandgate.core.clock import Clock

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class FreshCache(Generic[KeyT, ValueT]):
    """Holds at most ``most`` values, each for ``max_age_s`` from the moment that it was asked for.

    Callers that miss the same key at the same time share one load. For use on one event loop.
    """

    def __init__(self, clock: Clock, *, max_age_s: float, most: int) -> None:
        self._clock = clock
        self._max_age_s = max_age_s
        self._most = most
        self._values: OrderedDict[KeyT, tuple[float, ValueT]] = OrderedDict()
        self._loading: dict[KeyT, asyncio.Future[ValueT]] = {}

    async def get(self, key: KeyT, load: Callable[[KeyT], Awaitable[ValueT]]) -> ValueT:
        """The value, loaded unless a fresh one is held. What ``load`` raises is raised to all who wait for it."""
        while True:
            held = self._values.get(key)
            if held is not None and self._clock.monotonic() - held[0] < self._max_age_s:
                return held[1]
            loading = self._loading.get(key)
            if loading is None:
                return await self._load(key, load)
            await asyncio.wait([loading])
            if not loading.cancelled():
                return loading.result()
            # Whoever loaded for all of us was cancelled; the first to come here loads anew.

    def drop(self, key: KeyT) -> None:
        """Forget the value, and that of a load that is under way: its answer may be from before the change."""
        self._values.pop(key, None)
        self._loading.pop(key, None)

    async def _load(self, key: KeyT, load: Callable[[KeyT], Awaitable[ValueT]]) -> ValueT:
        """Load for everybody who asks meanwhile."""
        loading: asyncio.Future[ValueT] = asyncio.get_running_loop().create_future()
        self._loading[key] = loading
        asked_at = self._clock.monotonic()
        try:
            value = await load(key)
        except asyncio.CancelledError:
            loading.cancel()
            raise
        except BaseException as error:
            loading.set_exception(error)
            loading.exception()  # Marks it as seen: often nobody else waits.
            raise
        else:
            loading.set_result(value)
            if self._loading.get(key) is loading:
                self._keep(key, asked_at, value)
            return value
        finally:
            if self._loading.get(key) is loading:
                del self._loading[key]

    def _keep(self, key: KeyT, asked_at: float, value: ValueT) -> None:
        """Hold the value as the newest; the one that was loaded longest ago gives way."""
        self._values[key] = (asked_at, value)
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)
