"""All files of a sandbox, as the launcher copies, packs and lays them out."""

import json
from collections.abc import Callable, Mapping, Sequence

from sandgate.core.errors import FilesUnavailable, SnapshotTooLarge, StoreUnavailable
from sandgate.core.files import parse_answer
from sandgate.core.ids import EnvironmentId
from sandgate.sandbox.launcher.client import LauncherClient
from sandgate.telemetry.log import get_logger

# Longer than the launcher gives itself.
_MARGIN_S = 5.0

_log = get_logger(__name__)


class LauncherCopies:
    """See :class:`sandgate.sandbox.base.FileCopier`. ``client()`` is the connection of the moment."""

    def __init__(self, client: Callable[[], LauncherClient]) -> None:
        self._client = client
        self._lack = ""

    async def copy(
        self,
        source: EnvironmentId,
        target: EnvironmentId,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> bool:
        """See ``FileCopier``."""
        answer = await self._client().request(
            "copy_files", limit_s=limit_s + _MARGIN_S, environment_id=target, source=source, tops=list(tops),
            most_entries=most_entries, most_bytes=most_bytes, within_s=limit_s,
        )  # fmt: skip
        if answer.values.get("too_much"):
            raise SnapshotTooLarge(
                f"The environment has more than {most_entries} entries or {most_bytes} bytes; delete some",
                {"limit_bytes": most_bytes},
            )
        ended = answer.values.get("source_ended")
        if ended is not None:
            raise FilesUnavailable(f"The environment ended while its files were copied: {ended}")
        lack = str(answer.values.get("lack", ""))
        if lack and lack != self._lack:
            self._lack = lack
            _log.info("files are copied by archives", reason=lack)
        return not lack

    async def pack(
        self,
        source: EnvironmentId,
        file: int,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> Mapping[str, int]:
        """See ``FileCopier``."""
        return await self._work("pack_files", source, file, tops, most_entries, most_bytes, limit_s)

    async def unpack(
        self,
        target: EnvironmentId,
        file: int,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> None:
        """See ``FileCopier``."""
        await self._work("unpack_files", target, file, tops, most_entries, most_bytes, limit_s)

    async def _work(
        self,
        verb: str,
        name: EnvironmentId,
        file: int,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> Mapping[str, int]:
        answer = await self._client().request_with(
            [file], verb, limit_s=limit_s + _MARGIN_S, environment_id=name, tops=list(tops),
            most_entries=most_entries, most_bytes=most_bytes, within_s=limit_s,
        )  # fmt: skip
        if "unwritable" in answer.values:
            raise StoreUnavailable(f"The snapshot could not be written: {answer.values['unwritable']}; ask again later")
        return parse_answer(json.dumps(answer.values).encode())
