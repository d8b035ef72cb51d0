"""What has changed in a folder of an environment, as the environment tells of it, which is hostile."""

from dataclasses import dataclass

from sandgate.core.files import KINDS, encode_path, not_agreed

CHANGES = ("created", "modified", "deleted", "moved")


@dataclass(frozen=True, slots=True)
class FileChange:
    """One change of an entry below the folder; or ``overflow`` (more than is told), ``started``, ``ended``."""

    kind: str
    path: bytes = b""
    entry_kind: str = ""
    target: bytes | None = None


def parse_change(value: object) -> FileChange:
    """One of them. Raises ``FilesUnavailable``."""
    try:
        assert isinstance(value, dict)  # noqa: S101 - translated below
        kind = value["event"]
        if kind == "overflow":
            return FileChange("overflow")
        assert kind in CHANGES  # noqa: S101 - same
        assert value["kind"] in KINDS  # noqa: S101 - same
        target = encode_path(str(value["to"])) if kind == "moved" else None
        return FileChange(kind, encode_path(str(value["path"])), value["kind"], target)
    except (AssertionError, KeyError, UnicodeError):
        raise not_agreed() from None
