"""Pages of lists, newest first, by opaque cursors."""

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from sandgate.core.page import Page, PageRequest
from sandgate.http.bodies import refuse_field
from sandgate.http.models.base import Model

# A version, so that cursors of a later order of rows can be told apart, and the id after which the next page begins.
_CURSOR = re.compile(r"1:([a-z]{2,10}-[0-9a-z]{12,64})")
_NOT_OF_THIS_LIST = "is not a cursor of this list; use next_cursor as it was given"
_NUMBER_CURSOR = re.compile(r"n:([0-9]{1,15})")
_DIGITS = re.compile(r"[0-9]{1,9}")


def _parse_digits(value: Any) -> Any:
    """Query strings hold text; only plain digits are a number."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


#: Comes before a number of a query.
Digits = BeforeValidator(_parse_digits)


class PageQuery(Model):
    """Which part of a list is wanted."""

    model_config = ConfigDict(strict=True, extra="forbid")

    limit: Annotated[int, Digits, Field(ge=1, le=200, description="How many items at most.")] = 50
    cursor: Annotated[str | None, Field(max_length=200, description="`next_cursor` of the page before; opaque.")] = None

    def page_request(self, prefix: str) -> PageRequest:
        """The page for a store. Raises ``InvalidRequest`` for a cursor that is not one of this list's."""
        return PageRequest(self.limit, None if self.cursor is None else _parse_cursor(self.cursor, prefix))


def next_cursor(page: Page[Any]) -> str | None:
    """What a client sends to get the page after this one."""
    return None if page.next_before_id is None else _encode(f"1:{page.next_before_id}")


def number_cursor(number: int) -> str:
    """What a client sends to go on with a certain entry of a list whose entries are counted."""
    return _encode(f"n:{number}")


def parse_number(text: str) -> int:
    """The number of the entry. Raises ``InvalidRequest`` for a cursor that is not one of this list's."""
    match = _NUMBER_CURSOR.fullmatch(_decode(text))
    if match is None:
        refuse_field("cursor", _NOT_OF_THIS_LIST)
    return int(match[1])


def _parse_cursor(text: str, prefix: str) -> str:
    match = _CURSOR.fullmatch(_decode(text))
    if match is None or not match[1].startswith(f"{prefix}-"):
        refuse_field("cursor", _NOT_OF_THIS_LIST)
    return match[1]


def _encode(plain: str) -> str:
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _decode(text: str) -> str:
    """What the cursor says; empty when it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""
