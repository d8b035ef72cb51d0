"""The calls of a client about files of environments."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import quote_from_bytes

from sandgate.sdk.answers import FileEntry
from sandgate.sdk.reading import quote_part, read_answer
from sandgate.sdk.transport import Asked, Transport

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


class FileCalls:
    """The part of :class:`sandgate.sdk.client.Client` that is about files, in the work folder or absolute."""

    _transport: Transport

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

    def list_files(self, environment_id: str, path: str = ".") -> Iterator[FileEntry]:
        """What is in a folder, by name, asked for page by page."""
        cursor = None
        while True:
            query = {"path": path, "limit": "1000"} | ({} if cursor is None else {"cursor": cursor})
            page = self._transport.ask(Asked("GET", f"{environment_path(environment_id)}/files", query=query))
            yield from (read_answer(FileEntry, row) for row in page["files"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def look_at_file(self, environment_id: str, path: str) -> FileEntry:
        """What is at a path; links are not followed."""
        asked = Asked("GET", f"{environment_path(environment_id)}/stat", query={"path": path})
        return read_answer(FileEntry, self._transport.ask(asked))

    def make_folder(self, environment_id: str, path: str) -> FileEntry:
        """Make a folder and those on the way to it."""
        asked = Asked("POST", f"{environment_path(environment_id)}/folders", {"path": path})
        return read_answer(FileEntry, self._transport.ask(asked))

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
        return read_answer(FileEntry, self._transport.ask(asked))
