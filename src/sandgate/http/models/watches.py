"""Watches of folders of environments, as clients ask for them and read them."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote_from_bytes

from pydantic import ConfigDict, Field

from sandgate.core.file_changes import FileChange
from sandgate.core.files import show_path
from sandgate.environments.watching import Watch
from sandgate.http.models.base import Model
from sandgate.http.models.files import FilePath
from sandgate.http.streaming import ServerEvent

WATCH_EXAMPLE = (
    'id: 1\nevent: started\ndata: {"path":"src"}\n\n'
    'id: 2\nevent: created\ndata: {"path":"src/a.py","encoded_path":"src/a.py","kind":"file"}\n\n'
    'id: 3\nevent: moved\ndata: {"path":"src/a.py","encoded_path":"src/a.py","kind":"file","to":"src/b.py",'
    '"encoded_to":"src/b.py"}\n\n'
)


class WatchFiles(Model):
    """Which folder, and how deep."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: FilePath = "."
    recursive: Annotated[bool, Field(strict=False, description="Whether folders in it are watched, too.")] = True


class RenderedChanges:
    """A watch on its way out. ``has_missed``: the client was told of an earlier one, and knows nothing since."""

    def __init__(self, watch: Watch, path: str, *, has_missed: bool) -> None:
        self._watch = watch
        self._path = path
        self._folder = b"" if path == "." else path.rstrip("/").encode("utf-8", "replace") + b"/"
        self._has_missed = has_missed
        self._number = 0

    async def __anext__(self) -> Sequence[ServerEvent]:
        """See ``Events``."""
        changes = list(await anext(self._watch))
        if self._has_missed:
            self._has_missed = False
            changes.append(FileChange("overflow"))
        return [self._render(change) for change in changes]

    async def aclose(self) -> None:
        """See ``Events``."""
        await self._watch.aclose()

    def _render(self, change: FileChange) -> ServerEvent:
        self._number += 1
        data: dict[str, Any] = {"path": self._path}
        if change.path:
            data = {**_place("path", "encoded_path", self._folder + change.path), "kind": change.entry_kind}
        if change.target is not None:
            data |= _place("to", "encoded_to", self._folder + change.target)
        return ServerEvent(change.kind, str(self._number), data)


def _place(name: str, encoded_name: str, path: bytes) -> dict[str, str]:
    return {name: show_path(path), encoded_name: quote_from_bytes(path, safe="/")}
