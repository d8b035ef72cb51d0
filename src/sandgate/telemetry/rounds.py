"""What is done again and again as long as the service runs."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sandgate.core.errors import MechanismFault


async def go_round(
    look: Callable[[], Awaitable[object]],
    interval_s: float,
    log: structlog.stdlib.BoundLogger,
    event: str,
    *,
    at_once: bool = False,
) -> None:
    """Do it every ``interval_s`` seconds, until cancelled, for the first time after that or ``at_once``.

    When the database, the launcher or the disk is away, ``event`` is logged with the reason, and it is done again next
    time. Whatever else is raised is a bug, and ends it.
    """
    if not at_once:
        await asyncio.sleep(interval_s)
    while True:
        try:
            await look()
        except MechanismFault as fault:
            log.warning(event, reason=fault.message)
        except OSError as fault:
            log.error(event, reason=fault.strerror)  # noqa: TRY400 - where it came up says nothing more
        await asyncio.sleep(interval_s)
