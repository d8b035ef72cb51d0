"""What a template is made from, as its owner says it."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from sandgate.core.language import Language
from sandgate.core.limits import AskedLimits
from sandgate.core.network import NetworkRules

LAYER_FOLDER = "/opt/template"
"""Where a template's own files are in its environments, and where it is built."""

# Of how recipes are built: a change of it makes templates that are built again other ones.
_BUILDER = 1


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A file that is written before anything else; ``path`` is below ``LAYER_FOLDER``, and seen from there."""

    path: str
    content: bytes = field(repr=False)
    is_executable: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        content = b64encode(self.content).decode()
        return {"path": self.path, "content_base64": content, "executable": self.is_executable}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(value["path"], b64decode(value["content_base64"]), value["executable"])


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that is laid out upon ``base``, in this order: files, packages, what the setup commands do.

    ``index`` is the package index, None the server's. ``network`` is what a build may reach beside the index.
    ``languages`` are further ones that code can be written in, each with one command. ``ready`` is a command that has
    to succeed in an environment of what was built, None for nothing. ``root`` is the server's own template below a
    ``base`` that was built, None where that is the base.

    ``tar`` is the SHA-256, in hexadecimal, of an archive with the root file system that everything is laid out upon,
    ``image`` what an image in a registry is called that is one; then there is no ``base``, or one that has this root.
    ``apt`` are Debian packages to be installed in that first, as ``name:architecture=version`` or less.
    """

    base: str
    packages: tuple[str, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    setup: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    limits: AskedLimits = field(default_factory=AskedLimits)
    network: NetworkRules = field(default_factory=NetworkRules)
    index: str | None = None
    languages: tuple[Language, ...] = ()
    ready: str | None = None
    root: str | None = None
    tar: str | None = None
    image: str | None = None
    apt: tuple[str, ...] = ()

    @property
    def lowest(self) -> str:
        """The server's own template that everything rests on; empty where that is a root file system of its own."""
        return "" if self.has_own_root else self.root or self.base

    @property
    def has_own_root(self) -> bool:
        """Whether it rests on a root file system that is none of the server's."""
        return self.tar is not None or self.image is not None

    def upon(self, base: "Recipe", reference: str) -> "Recipe":
        """With all that environments of its base have; what it says itself is stronger."""
        return replace(
            self,
            base=reference,
            root=base.lowest or None,
            tar=base.tar,
            image=base.image,
            env={**base.env, **self.env},
            preload=tuple(dict.fromkeys((*base.preload, *self.preload))),
            limits=AskedLimits(**{**base.limits.given(), **self.limits.given()}),
            languages=tuple({each.name: each for each in (*base.languages, *self.languages)}.values()),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "base": self.base,
            "packages": list(self.packages),
            "files": [file.to_json() for file in self.files],
            "env": dict(self.env),
            "setup": list(self.setup),
            "preload": list(self.preload),
            "limits": asdict(self.limits),
            "network": self.network.to_json(),
            "index": self.index,
            "languages": [[each.name, list(each.commands[0]), each.extension] for each in self.languages],
            "ready": self.ready,
            "root": self.root,
            # Recipes without it are to stay the same as before there was any.
            **({} if self.tar is None else {"tar": self.tar}),
            **({} if self.image is None else {"image": self.image}),
            **({"apt": list(self.apt)} if self.apt else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(
            base=value["base"],
            packages=tuple(value["packages"]),
            files=tuple(map(RecipeFile.from_json, value["files"])),
            env=dict(value["env"]),
            setup=tuple(value["setup"]),
            preload=tuple(value["preload"]),
            limits=AskedLimits(**value["limits"]),
            network=NetworkRules.from_json(value["network"]),
            index=value["index"],
            languages=tuple(Language(name, (tuple(words),), end) for name, words, end in value.get("languages", ())),
            ready=value.get("ready"),
            root=value.get("root"),
            tar=value.get("tar"),
            image=value.get("image"),
            apt=tuple(value.get("apt", ())),
        )

    def digest(self, rests_on: str, index: str) -> str:
        """The same for what would be built the same way: of the recipe, its base as it is now, and the index."""
        whole = [_BUILDER, self.to_json(), rests_on, index]
        return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
