"""Whether the service can do its work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from sandgate.core.clock import Clock
from sandgate.core.errors import NotReady, SandgateError

# Anybody may ask, and asking writes to the database, so that one look serves all who ask within this time.
_FRESH_S = 1.0
_PATIENCE_S = 3.0

Check = Callable[[], Awaitable[None]]


class Readiness:
    """Asks every part of the service, given by name, whether it answers."""

    def __init__(self, checks: Mapping[str, Check], clock: Clock) -> None:
        self._checks = checks
        self._clock = clock
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._missing: dict[str, str] = {}
        self._seen_at: float | None = None

    async def check(self) -> None:
        """Raises ``NotReady`` that names each part that does not answer, with the reason."""
        if self._seen_at is None or self._clock.monotonic() - self._seen_at >= _FRESH_S:
            await self._look()
        if self._missing:
            raise NotReady(f"The service is not ready: {', '.join(self._missing)}", {"missing": self._missing})

    async def _look(self) -> None:
        """Look once, however many ask at the same time."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._ask_all(), name="readiness")
        looking = self._looking
        try:
            self._missing = await asyncio.shield(looking)
            self._seen_at = self._clock.monotonic()
        finally:
            if looking.done():
                self._looking = None

    async def _ask_all(self) -> dict[str, str]:
        reasons = await asyncio.gather(*map(_ask, self._checks.values()))
        return {name: reason for name, reason in zip(self._checks, reasons, strict=True) if reason is not None}


async def _ask(check: Check) -> str | None:
    """Why a part does not answer."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await check()
    except SandgateError as error:
        return error.message
    except TimeoutError:
        return f"did not answer within {_PATIENCE_S:.0f} s"
    return None
