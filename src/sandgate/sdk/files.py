"""The calls of a client about files of environments."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, TypedDict, Unpack
from urllib.parse import quote_from_bytes, urlencode

from sandgate.sdk.answers import FileEntry, FileLink, FileMatch, Unpacked
from sandgate.sdk.calls import Calls
from sandgate.sdk.events import ServerEvent
from sandgate.sdk.reading import quote_part, read_answer
from sandgate.sdk.transport import Asked

# Of files and matches.
_LARGEST_PAGE = 1000
_SEARCH_S = 300.0

_ENVIRONMENTS = "/api/v1/sandbox/environments"


def environment_path(environment_id: str) -> str:
    """Where an environment is."""
    return f"{_ENVIRONMENTS}/{quote_part(environment_id)}"


def file_path(environment_id: str, path: str | bytes) -> str:
    """Where a file of it is; bytes where a name is no text."""
    raw = path.encode() if isinstance(path, str) else path
    # Dots are steps in an address, wherever they stand alone.
    parts = [quote_from_bytes(part) if part.strip(b".") else "%2E" * len(part) for part in raw.split(b"/")]
    return f"{environment_path(environment_id)}/files/{'/'.join(parts)}"


class SearchOptions(TypedDict, total=False):
    """What is looked for: a shell's pattern of the name, and what a line has in it."""

    name: str
    content: str
    regex: bool
    ignore_case: bool


class LinkOptions(TypedDict, total=False):
    """How long a link is good, in seconds, what a browser saves its file as, and what may be written with it."""

    expires_in: int
    name: str
    max_bytes: int
    overwrite: bool


class FileCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about files, in the work folder or absolute."""

    def write_file(
        self, environment_id: str, path: str | bytes, content: bytes | Iterable[bytes], *, overwrite: bool = True
    ) -> FileEntry:
        """Write a file in one step. Content that comes in pieces is sent as it comes."""
        query = {} if overwrite else {"overwrite": "false"}
        asked = Asked("PUT", file_path(environment_id, path), query=query)
        return read_answer(FileEntry, self._transport.send_content(asked, content))

    def read_file(self, environment_id: str, path: str | bytes) -> bytes:
        """The whole content of a file."""
        with self.open_file(environment_id, path) as pieces:
            return b"".join(pieces)

    def open_file(self, environment_id: str, path: str | bytes) -> AbstractContextManager[Iterator[bytes]]:
        """The content of a file in pieces, as it comes."""
        return self._transport.opened_content(Asked("GET", file_path(environment_id, path)))

    def open_archive(
        self, environment_id: str, path: str = ".", form: str = "tar"
    ) -> AbstractContextManager[Iterator[bytes]]:
        """A folder with all that is in it as ``tar``, ``tar.gz`` or ``zip``, in pieces, as it comes.

        One that cannot be sent to its end raises ``ServerUnreachable``.
        """
        query = {"path": path, "format": form}
        return self._transport.opened_content(Asked("GET", f"{environment_path(environment_id)}/archive", query=query))

    def write_archive(
        self,
        environment_id: str,
        path: str,
        content: bytes | Iterable[bytes],
        form: str = "tar",
        *,
        overwrite: bool = True,
        outside_links: bool = False,
    ) -> Unpacked:
        """Lay an archive out in a folder: all of it, or nothing."""
        query = {"path": path, "format": form} | ({} if overwrite else {"overwrite": "false"})
        query |= {"outside_links": "true"} if outside_links else {}
        asked = Asked("PUT", f"{environment_path(environment_id)}/archive", query=query)
        return read_answer(Unpacked, self._transport.send_content(asked, content))

    def create_link(
        self, environment_id: str, path: str, method: Literal["GET", "PUT"] = "GET", **more: Unpack[LinkOptions]
    ) -> FileLink:
        """A link with which anybody may read or write one file until it expires."""
        body = {"path": path, "method": method, **more}
        asked = Asked("POST", f"{environment_path(environment_id)}/links", body)
        return self._get(FileLink, asked)

    def list_files(self, environment_id: str, path: str = ".") -> Generator[FileEntry, None, None]:
        """What is in a folder, by name, asked for page by page."""
        folder = f"{environment_path(environment_id)}/files"
        return self._list(FileEntry, folder, "files", {"path": path}, rows=_LARGEST_PAGE)

    def search_files(
        self, environment_id: str, path: str = ".", **more: Unpack[SearchOptions]
    ) -> Generator[FileMatch, None, None]:
        """Files below a folder by name, or lines of them by content, asked for page by page.

        A search whose time is over goes on with the next page; closing the generator ends it.
        """
        options = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in more.items()}
        return self._list(
            FileMatch,
            f"{environment_path(environment_id)}/search",
            "matches",
            {"path": path, **options},
            rows=_LARGEST_PAGE,
            patience_s=_SEARCH_S,
        )

    def watch_files(
        self, environment_id: str, path: str = ".", *, recursive: bool = True, silence_s: float = 60.0
    ) -> Generator[ServerEvent, None, None]:
        """What changes in a folder from now on; closing the generator ends it.

        ``overflow`` means that there was more than is told, and the end that it has to be asked for again.
        """
        query = urlencode({"path": path, "recursive": str(recursive).lower()})
        yield from self._stream(Asked("GET", f"{environment_path(environment_id)}/watch?{query}"), "", silence_s)

    def look_at_file(self, environment_id: str, path: str) -> FileEntry:
        """What is at a path; links are not followed."""
        asked = Asked("GET", f"{environment_path(environment_id)}/stat", query={"path": path})
        return self._get(FileEntry, asked)

    def make_folder(self, environment_id: str, path: str) -> FileEntry:
        """Make a folder and those on the way to it."""
        asked = Asked("POST", f"{environment_path(environment_id)}/folders", {"path": path})
        return self._get(FileEntry, asked)

    def move_file(self, environment_id: str, source: str, target: str, *, overwrite: bool = False) -> FileEntry:
        """Move a file or a tree."""
        return self._transfer(environment_id, "move", source, target, overwrite=overwrite)

    def copy_file(self, environment_id: str, source: str, target: str, *, overwrite: bool = False) -> FileEntry:
        """Copy a file or a tree."""
        return self._transfer(environment_id, "copy", source, target, overwrite=overwrite)

    def delete_file(self, environment_id: str, path: str | bytes, *, recursive: bool = False) -> None:
        """Remove a file, an empty folder, or with ``recursive`` a tree."""
        query = {"recursive": "true"} if recursive else None
        self._transport.ask(Asked("DELETE", file_path(environment_id, path), query=query))

    def _transfer(self, environment_id: str, what: str, source: str, target: str, *, overwrite: bool) -> FileEntry:
        body = {"source": source, "target": target, "overwrite": overwrite}
        asked = Asked("POST", f"{environment_path(environment_id)}/{what}", body)
        return self._get(FileEntry, asked)
