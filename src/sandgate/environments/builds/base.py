"""What building templates needs from the machine, and what it offers."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sandgate.core.built import BuiltTemplate, LayerSize
from sandgate.core.ids import UserId
from sandgate.core.image import ImageReference
from sandgate.core.limits import Ceilings
from sandgate.core.principal import Principal
from sandgate.core.recipe import Recipe
from sandgate.core.template import Template
from sandgate.environments.builds.log import LogEvents


class Layers(Protocol):
    """Where the files of built templates are, each below a name of its own; nobody changes them any more."""

    def has(self, name: str) -> bool:
        """Whether it is there, whole."""
        ...

    async def keep(self, name: str, archive: AsyncIterator[bytes]) -> LayerSize:
        """Lay out a tar, which is hostile. Raises ``BuildFailed``, ``MechanismFault``, and what reading it raises."""
        ...

    def spool(self, name: str) -> Path:
        """Where an archive waits until it is laid out as the root file system of this name."""
        ...

    async def keep_root(self, name: str, archive: Path, programs: Sequence[str]) -> Mapping[str, Any]:
        """Lay out an archive with a root file system, which is hostile. Raises ``BuildFailed``, ``MechanismFault``.

        What it says: ``files``, ``size_bytes``, ``env``, ``folder``, and where the ``programs`` are that it has.
        """
        ...

    async def keep_changed_root(
        self, name: str, archive: AsyncIterator[bytes], programs: Sequence[str], places: str
    ) -> Mapping[str, Any]:
        """Lay out a tar of a root file system, which is hostile; ``places`` is the ``PATH`` with its ``programs``.

        Says and raises the same, and raises what reading the tar does.
        """
        ...

    async def drop(self, name: str) -> None:
        """Remove it, if it is there, and what was to become it."""
        ...

    async def sweep(self, names: Collection[str], spared: str = "") -> None:
        """Remove all but these, and those whose name begins with what is to be ``spared``."""
        ...


class RemoteImage(Protocol):
    """An image in a registry."""

    digest: str

    async def fetch(self, path: Path, most_bytes: int) -> int:
        """Write it to an image archive; how many bytes it is. Raises ``BuildFailed``, ``MechanismFault``."""
        ...


class Images(Protocol):
    """Images in registries."""

    async def find(self, reference: ImageReference, owner: str) -> RemoteImage:
        """The one that a reference stands for now. Raises ``BuildFailed``."""
        ...


@dataclass(frozen=True, slots=True)
class BuildTools:
    """What builds are made with: where layers and logs are kept, the program ``uv``, None where there is none, and
    where images come from, None where none are fetched.
    """

    layers: Layers
    logs: Path
    uv: Path | None
    images: Images | None = None


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """What somebody wants built. ``rebuild``: also when the same was built before."""

    name: str
    recipe: Recipe
    is_public: bool = False
    rebuild: bool = False


class EnvironmentFacts(Protocol):
    """What building templates has to know of environments."""

    def count_of(self, template: BuiltTemplate) -> int:
        """How many live environments there are of it."""
        ...

    async def count_snapshots_of(self, template: BuiltTemplate) -> int:
        """How many snapshots environments can begin with as long as it is there. Raises ``StoreUnavailable``."""
        ...

    async def ceilings_of(self, user_id: UserId) -> Ceilings:
        """The most that one environment of a user may have. Raises ``StoreUnavailable``."""
        ...


class RunFacts(Protocol):
    """What building templates has to know of runs of workflows."""

    def count_of(self, template: BuiltTemplate) -> int:
        """How many live runs there are that began with it, and may need it again."""
        ...

    def count_sandboxes_of(self, template: BuiltTemplate) -> int:
        """How many sandboxes of steps there are of it, whether or not their runs began with it, or are over."""
        ...


class BuiltTemplates(Protocol):
    """The use cases of templates that are built. Each raises ``StoreUnavailable``."""

    async def build(self, caller: Principal, wanted: NewTemplate) -> Template:
        """Begin to build a template, or find the one that is the same; answered at once.

        Raises ``Forbidden``, ``TemplateNameTaken``, ``UnknownTemplate``, ``TemplateUnavailable``,
        ``IsolationUnavailable``, ``NetworkNotOffered``, ``TooManyNetworkRules``, ``LimitTooHigh``, ``RecipeTooLarge``,
        ``TooManyTemplates``, ``TooManyBuilds``, ``ServiceDraining``.
        """
        ...

    def list(self, caller: Principal, name: str | None = None) -> Sequence[Template]:
        """The server's own, and the newest version of each that the caller may use; with ``name`` all of that."""
        ...

    def get(self, caller: Principal, name: str) -> Template:
        """One by ``name``, ``name@version`` or id; by name it is the newest version. Raises ``TemplateNotFound``."""
        ...

    def awaits_upload(self, template: Template) -> bool:
        """Whether its build waits for the archive that its recipe names."""
        ...

    async def upload(self, caller: Principal, name: str, archive: AsyncIterator[bytes]) -> Template:
        """Take the archive that a build waits for; it goes on when all of it is there and is the one.

        Raises ``TemplateNotFound``, ``Forbidden``, ``NoUploadAwaited``, ``RecipeTooLarge``, ``InvalidRequest``,
        ``MechanismFault``, and what reading it raises, after which the build still waits.
        """
        ...

    def follow(self, caller: Principal, name: str, position: int) -> LogEvents:
        """What a build has said and says, from a position on. Raises ``TemplateNotFound``, ``Forbidden``."""
        ...

    async def read_log(self, caller: Principal, name: str) -> str:
        """What a build has said. Raises ``TemplateNotFound``, ``Forbidden``."""
        ...

    async def delete(self, caller: Principal, name: str, *, force: bool = False) -> Sequence[BuiltTemplate]:
        """Delete one version, or all of a name; a build that is under way is ended.

        With ``force`` also where there are snapshots, with which nothing can begin any more then.
        Raises ``TemplateNotFound``, ``Forbidden``, ``TemplateInUse``.
        """
        ...
