"""Files of an environment, as a sandbox tells of them, which is hostile."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sandgate.core.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    DiskFull,
    FileConflict,
    FileForbidden,
    FileMissing,
    FilesUnavailable,
    FileTooLarge,
    PathInvalid,
    PatternInvalid,
    SandgateError,
    SnapshotTooLarge,
)

ArchiveForm = Literal["tar", "tar.gz", "zip"]
KINDS = ("file", "folder", "link", "other")
# A path has 4,096 bytes at most, and the end of a text is one of them. Source: PATH_MAX in linux/limits.h.
LONGEST_PATH_BYTES = 4095
# An entry has two paths at most, each byte of which may be six characters.
MOST_RECORD_BYTES = 64 * 1024
_LARGEST = 2**63 - 1
_LATEST_NS = 253_402_300_799 * 10**9

_ERRORS: Mapping[str, type[SandgateError]] = {
    "ENOENT": FileMissing,
    "EISDIR": FileConflict,
    "ENOTDIR": FileConflict,
    "ENOTEMPTY": FileConflict,
    "EEXIST": FileConflict,
    "ENODEV": FileConflict,
    "ENXIO": FileConflict,
    "EXDEV": FileConflict,
    "EBUSY": FileConflict,
    "ETXTBSY": FileConflict,
    "EOVERFLOW": FileConflict,
    "EACCES": FileForbidden,
    "EPERM": FileForbidden,
    "EROFS": FileForbidden,
    "EINVAL": PathInvalid,
    "ENAMETOOLONG": PathInvalid,
    "ELOOP": PathInvalid,
    "ENOSPC": DiskFull,
    "EDQUOT": DiskFull,
    "EFBIG": FileTooLarge,
    "PATTERN_INVALID": PatternInvalid,
    "ARCHIVE_INVALID": ArchiveInvalid,
    "ARCHIVE_TOO_LARGE": ArchiveTooLarge,
    "SNAPSHOT_TOO_LARGE": SnapshotTooLarge,
}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file. ``path`` is bytes, because a name inside may be any; ``target`` is where a link leads."""

    path: bytes
    kind: str
    size_bytes: int
    mode: int
    modified_at: datetime
    tag: str
    target: bytes | None = None


def encode_path(path: str) -> bytes:
    """A path as the kernel knows it; bytes that are no UTF-8 are lone surrogates in the text."""
    return path.encode("utf-8", "surrogateescape")


def show_path(path: bytes) -> str:
    """A path for people: with U+FFFD for what is no UTF-8."""
    return path.decode("utf-8", "replace")


def parse_answer(text: bytes) -> Mapping[str, Any]:
    """The record that comes first. Raises what it says went wrong, or ``FilesUnavailable`` when it says nothing."""
    answer = _parse(text)
    if not isinstance(answer, dict):
        raise not_agreed()
    if "error" in answer:
        raise _error(answer)
    return answer


def parse_found(text: bytes) -> list[Any]:
    """Things that come in a further record. Raises ``FilesUnavailable``."""
    found = _parse(text)
    if not isinstance(found, list):
        raise not_agreed()
    return found


def not_agreed() -> FilesUnavailable:
    """What an environment says cannot be read."""
    return FilesUnavailable("The environment answered in no form that was agreed")


def parse_count(value: object) -> int:
    """A number of things. Raises ``FilesUnavailable``."""
    if not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise not_agreed()
    return value


def _parse(text: bytes) -> object:
    if len(text) > MOST_RECORD_BYTES:
        raise not_agreed()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise not_agreed() from None


def _error(answer: Mapping[str, Any]) -> SandgateError:
    kind = _ERRORS.get(str(answer["error"])[:32], FilesUnavailable)
    try:
        path = show_path(encode_path(str(answer.get("path", ""))))[:LONGEST_PATH_BYTES]
    except UnicodeEncodeError:
        path = ""
    why = str(answer.get("message", "")).encode("utf-8", "replace").decode("utf-8")[:200]
    where = f"{path!r} in the environment" if path else "The environment says"
    return kind(f"{where}: {why}", {"path": path})


def parse_entry(value: object) -> FileEntry:
    """One file. Raises ``FilesUnavailable``."""
    try:
        assert isinstance(value, dict)  # noqa: S101 - translated below
        kind, target = value["kind"], value.get("target")
        numbers = [value[name] for name in ("size", "mode", "modified_ns", "inode")]
        assert kind in KINDS  # noqa: S101 - translated below
        assert all(isinstance(number, int) and abs(number) <= _LARGEST for number in numbers)  # noqa: S101 - same
        size, mode, modified_ns, inode = numbers
        assert size >= 0  # noqa: S101 - same
        modified_at = datetime.fromtimestamp(max(0, min(modified_ns, _LATEST_NS)) // 1000 / 10**6, UTC)
        tag = f"{modified_ns:x}-{size:x}-{inode:x}"
        link = None if target is None else encode_path(str(target))
        return FileEntry(encode_path(str(value["path"])), kind, size, mode & 0o7777, modified_at, tag, link)
    except (AssertionError, KeyError, UnicodeError, OverflowError):
        raise not_agreed() from None
