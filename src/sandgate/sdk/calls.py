"""What all parts of the client are made of: an answer as a record, a list page by page, a stream of events."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

from sandgate.sdk.answers import AnswerModel
from sandgate.sdk.errors import UnexpectedAnswer
from sandgate.sdk.events import EventParser, ServerEvent
from sandgate.sdk.reading import read_answer
from sandgate.sdk.transport import Asked, Transport

AnswerT = TypeVar("AnswerT", bound=AnswerModel)

_ROWS = 200


class Calls:
    """A part of :class:`sandgate.sdk.client.Client`; it raises what that one does."""

    _transport: Transport

    def _get(self, kind: type[AnswerT], asked: Asked) -> AnswerT:
        return read_answer(kind, self._transport.ask(asked))

    def _list(
        self,
        kind: type[AnswerT],
        path: str,
        member: str,
        filters: Mapping[str, str | Sequence[str] | None] | None = None,
        *,
        rows: int = _ROWS,
        patience_s: float = 0.0,
    ) -> Generator[AnswerT, None, None]:
        """All of a list of which each page has a part as ``member``; a page is asked for when it is needed.

        Filters that are None are left out. ``rows`` is how many a page has at most; see ``Asked`` for ``patience_s``.
        """
        query: dict[str, str | Sequence[str]] = {"limit": str(rows), **leave_out_none(filters or {})}
        while True:
            page = self._transport.ask(Asked("GET", path, query=query, patience_s=patience_s))
            if not isinstance(page, dict) or not isinstance(page.get(member), list):
                raise UnexpectedAnswer(f"{self._transport.address}{path} was answered without {member}")
            yield from (read_answer(kind, row) for row in page[member])
            if page.get("next_cursor") is None:
                return
            query["cursor"] = str(page["next_cursor"])

    def _stream(self, asked: Asked, last_event_id: str, silence_s: float) -> Generator[ServerEvent, None, None]:
        """Events, all or those after ``last_event_id``, of which one or a sign of life comes within ``silence_s``."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        parser = EventParser(last_event_id)
        with self._transport.opened_stream(asked, headers, silence_s) as pieces:
            for piece in pieces:
                yield from parser.feed(piece)


def leave_out_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was given; what is None was not."""
    return {name: value for name, value in fields.items() if value is not None}
