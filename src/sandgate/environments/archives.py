"""The use cases of whole folders of environments, as archives that are packed and unpacked inside."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandgate.core.errors import ArchiveTooLarge, FileConflict, FilesUnavailable, SandgateError, TooManyExecutions
from sandgate.core.files import ArchiveForm, parse_answer, parse_count
from sandgate.core.ids import EnvironmentId
from sandgate.core.outlet import Outlet
from sandgate.core.principal import Principal
from sandgate.environments.file_channels import Channel, FileWork, check_path
from sandgate.environments.live import LiveEnvironment

#: The modules that pack a folder.
PACKING = ("walking", "tarring", "zipping", "packing")
_UNPACKING = ("laying", "unpacking", "unzip", "untar", "expanding")
_DISCARDS = 10
_DISCARD_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was laid out from an archive."""

    files: int
    folders: int
    links: int
    size_bytes: int


class OpenArchive:
    """A folder on its way as an archive. ``skipped`` is how much of it an archive cannot hold, as it seems now."""

    def __init__(self, form: ArchiveForm, skipped: int, channel: Channel) -> None:
        self.form = form
        self.skipped = skipped
        self._channel = channel

    async def read(self) -> bytes:
        """The next part; nothing at the end. Raises what went wrong: then the archive is not whole."""
        part = await self._channel.part()
        if not part:
            parse_answer(await self._channel.record())
        return part

    def close(self) -> None:
        """Nothing more will be read."""
        self._channel.close()


class Archives(FileWork):
    """The part of ``FileService`` that is about archives."""

    async def open_archive(
        self, caller: Principal, environment_id: EnvironmentId, path: str, form: ArchiveForm
    ) -> OpenArchive:
        """See ``Files``."""
        check_path(path)
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        settings = self._settings
        arguments = {
            "path": path,
            "form": form,
            "most_entries": settings.max_archive_entries,
            "most_bytes": settings.max_archive_bytes,
        }
        channel = await self._begin(live, "pack", arguments, None, settings.file_transfer_timeout_s, PACKING)
        measured = await self._first_answer(channel)
        try:
            return OpenArchive(form, parse_count(measured.get("skipped")), channel)
        except FilesUnavailable:
            channel.close()
            raise

    async def unpack(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        path: str,
        form: ArchiveForm,
        body: AsyncIterator[bytes],
        *,
        overwrite: bool,
        outside_links: bool,
        size_bytes: int = 0,
    ) -> Unpacked:
        """See ``Files``."""
        check_path(path)
        live = await self._lookup.get_live(caller, environment_id)
        if size_bytes > self._settings.max_archive_bytes:
            raise self._archive_too_large()
        staging = f".unpack-{secrets.token_hex(8)}"
        caps = {
            "entries": self._settings.max_archive_entries,
            "bytes": self._settings.max_archive_bytes,
            "overwrite": overwrite,
            "outside_links": outside_links,
        }
        arguments = {"path": path, "form": form, "staging": staging, **caps}
        outlet = Outlet()
        timeout_s = self._settings.file_transfer_timeout_s
        channel = await self._begin(live, "unpack", arguments, outlet, timeout_s, _UNPACKING)
        try:
            answer = await self._send(channel, outlet, body, self._settings.max_archive_bytes, self._archive_too_large)
            return _parse_unpacked(answer)
        except BaseException:
            # One that was killed had no time to remove what it had laid out so far.
            self._tasks.spawn(self._clear_up(channel, live, path, staging), f"discard {staging}")
            raise

    async def _clear_up(self, channel: Channel, live: LiveEnvironment, path: str, staging: str) -> None:
        await channel.wait()
        for _attempt in range(_DISCARDS):
            try:
                await self._discard(live, path, staging)
            except (TooManyExecutions, FileConflict, FilesUnavailable):
                # It has no place for that now, or something was still at work there.
                await asyncio.sleep(_DISCARD_AGAIN_S)
            except SandgateError:
                # The environment has ended, with all that is in it.
                return
            else:
                return

    async def _discard(self, live: LiveEnvironment, path: str, staging: str) -> None:
        timeout_s = self._settings.file_operation_timeout_s
        channel = await self._begin(live, "discard", {"path": path, "staging": staging}, None, timeout_s, _UNPACKING)
        try:
            await channel.answer()
        finally:
            channel.close()

    def _archive_too_large(self) -> ArchiveTooLarge:
        limit = self._settings.max_archive_bytes
        return ArchiveTooLarge(f"The archive is larger than {limit} bytes", {"limit_bytes": limit})


def _parse_unpacked(answer: Mapping[str, Any]) -> Unpacked:
    return Unpacked(*(parse_count(answer.get(name)) for name in ("files", "folders", "links", "bytes")))
