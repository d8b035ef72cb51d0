"""The use case of looking for files by name and content, which is done inside."""

import asyncio
from dataclasses import dataclass
from typing import Any

from sandgate.core.errors import FilesUnavailable
from sandgate.core.file_matches import Match, SearchPlace, parse_match
from sandgate.core.files import not_agreed, parse_count
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal
from sandgate.environments.file_channels import Channel, FileWork, check_path, to_bytes

_MODULES = ("walking", "searching")
# Beyond its time a search ends by itself; one that does not is ended.
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for below a folder: ``name`` is a shell's pattern, ``content`` what a line has in it.

    None of both is everything. ``after`` is how far an earlier search came.
    """

    path: str
    name: str | None
    content: str | None
    is_regex: bool
    ignores_case: bool
    limit: int
    after: SearchPlace | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found, in order. ``reason`` says why there may be more: ``limit``, ``time``, or None: there is not.

    ``place`` is how far it came; ``skipped`` counts files that could not be looked into.
    """

    matches: tuple[Match, ...]
    reason: str | None
    place: SearchPlace | None
    files: int
    skipped: int


class Searching(FileWork):
    """The part of ``FileService`` that is about searches."""

    async def search(self, caller: Principal, environment_id: EnvironmentId, wanted: Search) -> SearchResult:
        """See ``Files``."""
        check_path(wanted.path)
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        after = wanted.after or SearchPlace(b"", 0)
        timeout_s = self._settings.file_search_timeout_s
        arguments = {
            "path": wanted.path,
            "name": wanted.name,
            "content": wanted.content,
            "options": {"regex": wanted.is_regex, "ignore_case": wanted.ignores_case},
            "limit": wanted.limit,
            "after": [after.path.decode("utf-8", "surrogateescape"), after.line],
            "timeout_s": timeout_s,
        }
        channel = await self._begin(live, "search", arguments, None, timeout_s + _GRACE_S, _MODULES)
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s + timeout_s + _GRACE_S):
                await channel.answer()
                return await self._gather(channel, wanted.limit)
        except TimeoutError:
            raise FilesUnavailable("The environment did not come to an end with its files in time") from None
        finally:
            channel.close()

    async def _gather(self, channel: Channel, limit: int) -> SearchResult:
        matches: list[Match] = []
        try:
            async for found in channel.found(limit):
                matches.append(parse_match(found))  # noqa: PERF401 - what came before an error stands
            ended = await channel.answer()
        except FilesUnavailable:
            if not matches:
                raise
            # It was ended over something that takes for ever; what it had found by then stands.
            last = matches[-1]
            return SearchResult(tuple(matches), "time", SearchPlace(last.path, last.line_number or 0), 0, 0)
        return _parse_result(ended, matches)


def _parse_result(ended: Any, matches: list[Match]) -> SearchResult:
    reason, path = ended.get("reason"), ended.get("path")
    if reason not in (None, "limit", "time") or not isinstance(path, str):
        raise not_agreed()
    place = None if reason is None else SearchPlace(to_bytes(path), parse_count(ended.get("line")))
    return SearchResult(
        tuple(matches), reason, place, parse_count(ended.get("files")), parse_count(ended.get("skipped"))
    )
