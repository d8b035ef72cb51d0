"""Names in the place of ids: a name is good where it means one thing of one's own."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from sandgate.core.errors import RequestRefused

if TYPE_CHECKING:
    from sandgate.sdk.client import Client

_SHOWN = 5


class NameNotClear(RequestRefused):
    """Several things have this name."""

    code = "NAME_NOT_CLEAR"


def find_only(ids: Iterable[str], called: str) -> str | None:
    """The only one of some ids, None where there is none; ``called`` says what they are, as ``workflows are called x``.

    No more are asked for than are shown. Raises ``NameNotClear``.
    """
    found = list(islice(ids, _SHOWN + 1))
    if len(found) > 1:
        more = " and more" if len(found) > _SHOWN else ""
        raise NameNotClear(f"Several {called}; take the id of one: {', '.join(found[:_SHOWN])}{more}")
    return found[0] if found else None


def find_own(client: "Client", rows: Iterable[tuple[str, str | None]], called: str) -> str | None:
    """The same for those that are the caller's: an admin is shown others', too, and names none of them by accident."""
    own = client.get_me().user_id
    return find_only((each for each, owner_id in rows if owner_id == own), called)
