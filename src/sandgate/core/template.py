"""What an environment is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sandgate.core.built import BuiltTemplate, Root
from sandgate.core.errors import UnknownLanguage
from sandgate.core.language import Language
from sandgate.core.limits import Limits
from sandgate.core.recipe import LAYER_FOLDER
from sandgate.core.states import Isolation

# The launcher knows what builds run in by what they rest on, and what was built by its id, which does not begin so.
BUILD_PREFIX = "build-"


@dataclass(frozen=True, slots=True)
class Layer:
    """What a template that was built adds to the built-in one that it rests on.

    ``folder`` is the name of the folder that holds its files; empty for the sandbox that they are made in, where its
    place is an empty folder of the user's, and that of another template may be shown beside it: ``under`` is its name.
    ``preload`` is imported before environments are made, ``env`` are variables.

    ``root`` is the name of the folder with the root file system, for one that has its own instead of a ``base``,
    ``interpreter`` where the interpreter is in there, and ``begins_in`` where code begins, empty for the usual folder.
    ``changes_root`` is for the sandbox in which another root file system is made of it.

    ``limits`` are those of environments that ask for none; None: as those of what it rests on.
    """

    base: str
    folder: str = ""
    preload: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    under: str = ""
    root: str = ""
    interpreter: str = ""
    begins_in: str = ""
    changes_root: bool = False
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """An immutable recipe.

    ``interpreter`` is the absolute path of the interpreter on the host, ``prefix`` the folder that it needs
    (its own ``sys.base_prefix``). A template whose interpreter was not found is kept with ``unavailable_reason``
    that says what to do. ``isolations`` are the classes that its environments can have, first the one of those that
    ask for none; none: the server's. ``languages`` are those that code can be written in beside the interpreter's.
    ``built`` is the row of one that a user has had built.
    """

    name: str
    language: str
    language_version: str
    interpreter: str | None
    prefix: str | None
    limits: Limits
    preload: tuple[str, ...] = ()
    unavailable_reason: str | None = None
    isolations: tuple[Isolation, ...] = ()
    languages: tuple[Language, ...] = ()
    built: BuiltTemplate | None = None

    @property
    def reference(self) -> str:
        """What environments that are made from it say that they are of."""
        return self.name if self.built is None else self.built.reference

    @property
    def key(self) -> str:
        """What the runtime knows it by: no other template has it, nor ever had."""
        return self.name if self.built is None else self.built.template_id

    @property
    def layer(self) -> Layer | None:
        """What it adds to the one that it rests on."""
        if self.built is None:
            return None
        recipe = self.built.recipe
        layer = make_layer(recipe.lowest, self.built.root, self.built.template_id, recipe.preload, recipe.env)
        return replace(layer, limits=self.limits)

    @property
    def language_names(self) -> tuple[str, ...]:
        """What code can be written in, first what it is written in unless something else is said."""
        return (self.language, *(language.name for language in self.languages))

    @property
    def isolation(self) -> Isolation | None:
        """The class of environments that ask for none; None: the server's."""
        return self.isolations[0] if self.isolations else None

    @property
    def available(self) -> bool:
        """Whether environments can be made from it on this machine."""
        return self.unavailable_reason is None


def make_layer(
    base: str,
    root: Root | None,
    folder: str,
    preload: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    *,
    under: str = "",
    changes_root: bool = False,
) -> Layer:
    """What is laid upon a template of the server's, or upon a root file system."""
    env = env or {}
    if root is None:
        return Layer(base, folder, preload, env, under)
    path = {"PATH": f"{LAYER_FOLDER}/bin:{root.env['PATH']}"} if "PATH" in root.env else {}
    env = {**root.env, **path, **env}
    return Layer("", folder, preload, env, under, root.name, root.interpreter, root.folder, changes_root)


def choose_language(template: Template, name: str) -> Language | None:
    """The language of this name; None for that of the interpreter. Raises ``UnknownLanguage``."""
    if name == template.language:
        return None
    for language in template.languages:
        if language.name == name:
            return language
    known = template.language_names
    raise UnknownLanguage(
        f"The template {template.name} knows no language {name!r}; it knows: {', '.join(known)}",
        {"language": name, "known": list(known)},
    )
