"""A template that a user has had built: one version of it, and how far that has come."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

from sandgate.core.ids import TemplateId, UserId
from sandgate.core.recipe import Recipe
from sandgate.core.states import TemplateStatus

# Between the name of a template that was built and the number of a version; in no name.
_OF_VERSION = "@"


class BuildFailed(Exception):
    """A build cannot go on; the text says why, to its owner."""


@dataclass(frozen=True, slots=True)
class LayerSize:
    """How much a layer holds."""

    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Root:
    """The root file system of a template that has one of its own.

    ``name`` is that of the folder with its files, ``origin`` what it was made from. ``interpreter`` is where it is in
    there, ``version`` which one. ``env`` are the variables that it came with, ``PATH`` among them; ``folder`` is the
    one that code begins in, empty for that of all environments. ``languages`` are those that it has programs for.
    ``apt_lock`` are the Debian packages that builds have put into it, as ``name:architecture=version``.
    """

    name: str
    origin: str
    interpreter: str
    env: Mapping[str, str] = field(repr=False)
    size: LayerSize
    version: str = ""
    folder: str = ""
    languages: tuple[str, ...] = ()
    apt_lock: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        lists = {"languages": list(self.languages), "apt_lock": list(self.apt_lock)}
        return {**asdict(self), "env": dict(self.env), **lists}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        # Those that were made before there were packages in them do not say so.
        lists = {"languages": tuple(value["languages"]), "apt_lock": tuple(value.get("apt_lock", ()))}
        own = {"size": LayerSize(**value["size"]), **lists}
        return cls(**{**value, **own})


@dataclass(frozen=True, slots=True)
class BuiltTemplate:
    """A row. ``digest`` is what it is known to be the same by; ``lock`` the packages that were installed, with hashes.

    ``interpreter`` is the one that it was built with, and is of no use without.
    ``is_public``: everybody may make environments from it. ``server_id`` is the server that has its files. ``root`` is
    its root file system; None: it rests on one of the server's own templates, or its own is not there yet.
    """

    template_id: TemplateId
    owner_id: UserId
    name: str
    version: int
    status: TemplateStatus
    digest: str
    interpreter: str
    is_public: bool
    server_id: str
    created_at: datetime
    recipe: Recipe = field(repr=False)
    finished_at: datetime | None = None
    status_reason: str | None = None
    files: int | None = None
    size_bytes: int | None = None
    lock: str | None = field(default=None, repr=False)
    root: Root | None = None

    @property
    def reference(self) -> str:
        """What names this version and no other one."""
        return f"{self.name}{_OF_VERSION}{self.version}"


def split_reference(reference: str) -> tuple[str, str | None]:
    """A name, and the version that goes with it; None where that is left open, as with the server's own templates."""
    name, mark, version = reference.partition(_OF_VERSION)
    return name, version if mark else None
