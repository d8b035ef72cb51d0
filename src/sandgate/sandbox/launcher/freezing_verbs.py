"""Does what the gateway asks about sandboxes that are to stand still, or to go on."""

from collections.abc import Callable, Mapping
from typing import Any

from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.life import Life


def serve(
    request: protocol.Freezes,
    sandbox: Life,
    answer: Callable[[Mapping[str, Any]], None],
    refuse: Callable[[str], None],
) -> None:
    """Freezing is answered when it stands still, with whether all of it does by then. Raises ``OSError``."""

    def told(reason: str | None) -> None:
        if reason is None:
            answer({"settled": sandbox.freezing.is_settled})
        else:
            refuse(reason)

    if isinstance(request, protocol.Freeze):
        return sandbox.freezing.begin(told, sandbox.part_apart if request.but_apart else None)
    sandbox.go_on()
    return answer({})
