"""What clients send and get to read about templates that are built."""

import re
import shlex
from datetime import datetime
from itertools import starmap
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sandgate.core.built import BuiltTemplate
from sandgate.core.language import Language
from sandgate.core.limits import AskedLimits
from sandgate.core.network import NetworkRules
from sandgate.core.recipe import LAYER_FOLDER, Recipe, RecipeFile
from sandgate.core.states import Isolation, TemplateStatus
from sandgate.core.template import Template
from sandgate.environments.builds.base import NewTemplate
from sandgate.http.models.base import Model
from sandgate.http.models.code import ExecutionFile
from sandgate.http.models.environments import LIMITS_EXAMPLE, LimitsAnswer
from sandgate.http.models.network import NetworkWanted
from sandgate.http.models.parts import Cursor, strict, with_example
from sandgate.http.models.requests import NO_NUL, LimitsWanted, VariableName, VariableValue
from sandgate.http.models.template_bases import ImageBase, TarBase, describe_root
from sandgate.http.pagination import PageQuery

_MODULE = r"^[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,7}$"
# A path that starts with a dash, or an option, would be read as something else than a requirement.
_REQUIREMENT = r"^[A-Za-z0-9][^\x00-\x1f]{0,499}$"
# One that ended with a dash would be an order to remove it.
_APT = r"^[a-z0-9][a-z0-9+.-]{0,98}[a-z0-9+.](:[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?)?(=[0-9][A-Za-z0-9.+:~-]{0,199})?$"
_PARTS = re.compile(r"[^/\x00]+(/[^/\x00]+)*")
_EXAMPLE: dict[str, Any] = {
    "name": "data",
    "base": "python-3.11",
    "packages": ["numpy==2.2.*", "pandas"],
    "files": [{"path": "share/words.txt", "content": "one\ntwo\n"}],
    "env": {"MODE": "fast"},
    "setup": ["mkdir -p models && echo ready > models/state"],
    "preload": ["numpy", "pandas"],
    "limits": {"memory_mb": 1024},
}
_OWN: dict[str, Any] = {
    "name": "python-3.9",
    "language": "python",
    "language_version": "3.9.20",
    "available": True,
    "unavailable_reason": None,
    "limits": LIMITS_EXAMPLE,
    "isolation": "standard",
    "isolations": ["standard", "gvisor"],
    "languages": ["python", "bash"],
    "preload": [],
    "template_id": None,
    "owner_id": None,
    "version": None,
    "status": None,
    "status_reason": None,
    "awaits_upload": None,
    "base": None,
    "public": None,
    "packages": None,
    "apt": None,
    "digest": None,
    "size_bytes": None,
    "files": None,
    "creation_time": None,
    "finished_at": None,
    "lock": None,
    "apt_lock": None,
}
_BUILT: dict[str, Any] = {
    **_OWN,
    "name": "data",
    "language_version": "3.11.9",
    "preload": ["numpy"],
    "template_id": "tpl-06evrhxq8g000wmabyzsqnd3wf",
    "owner_id": "user-06evrhxq8g000wmabyzsqnd3wf",
    "version": 1,
    "status": "ready",
    "awaits_upload": False,
    "base": "python-3.11",
    "public": False,
    "packages": ["numpy==2.2.*"],
    "apt": [],
    "digest": "6b1f0f3b4f1f1a4b8f6b0e0a5b0c1d2e3f405162738495a6b7c8d9eafb0c1d2e",
    "size_bytes": 64_212_480,
    "files": 1402,
    "creation_time": "2026-01-01T00:00:00Z",
    "finished_at": "2026-01-01T00:00:30Z",
    "lock": "numpy==2.2.6 \\\n    --hash=sha256:…\n",
    "apt_lock": [],
}


class TemplateFile(ExecutionFile):
    """A file of a template; either `content` or `content_base64` has to be there."""

    model_config = strict({"path": "share/words.txt", "content": "one\ntwo\n"})

    path: Annotated[
        str,
        Field(min_length=1, max_length=1024, description=f"Where it goes, below `{LAYER_FOLDER}`."),
    ]
    executable: Annotated[bool, Field(description="Whether it is a program.")] = False

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        parts = path.removeprefix(f"{LAYER_FOLDER}/")
        if not _PARTS.fullmatch(parts) or {".", ".."} & set(parts.split("/")):
            raise ValueError(f"is no path of a file below {LAYER_FOLDER}")
        return parts

    def file(self) -> RecipeFile:
        """For the use case."""
        return RecipeFile(self.path, self.content_bytes(), self.executable)


def _language(name: str, command: str) -> Language:
    """Raises ``ValueError``."""
    words = tuple(shlex.split(command))
    if not words:
        raise ValueError(f"{name} has no command")
    short, dot, extension = name.partition(".")
    return Language(short, (words,), dot + extension)


class BuildTemplate(Model):
    """A recipe, and what it is to be called."""

    model_config = strict(_EXAMPLE)

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
            description="A name of your own; built again it gets the next version. It does not begin with `tpl-`.",
        ),
    ]
    base: Annotated[
        Annotated[str, Field(min_length=1, max_length=128)] | TarBase | ImageBase,
        Field(
            description="The template that it rests on, `name`, or `name@version` of one that was built; or a root "
            "file system of its own."
        ),
    ]
    packages: Annotated[
        list[Annotated[str, Field(pattern=_REQUIREMENT)]],
        Field(max_length=200, description="Python packages, as `pip install` takes them by name."),
    ] = []
    apt: Annotated[
        list[Annotated[str, Field(pattern=_APT)]],
        Field(
            max_length=200,
            description="Debian packages, as `name`, `name=version` or `name:architecture`, for the root file system "
            "of the `base`, which has apt; they are installed first, from where it says.",
        ),
    ] = []
    files: Annotated[list[TemplateFile], Field(max_length=200)] = []
    env: Annotated[
        dict[VariableName, VariableValue],
        Field(
            max_length=64,
            description="Environment variables of the build, and of all code in environments; what comes with those is "
            "stronger.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = {}
    setup: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=8192, json_schema_extra={"pattern": NO_NUL})]],
        Field(max_length=50, description=f"Commands for `sh -e`, each run in `{LAYER_FOLDER}`, after all above."),
    ] = []
    preload: Annotated[
        list[Annotated[str, Field(pattern=_MODULE)]],
        Field(max_length=64, description="Modules that are imported before an environment is asked for."),
    ] = []
    limits: Annotated[
        LimitsWanted | None, Field(description="Limits of environments that ask for none, within your ceilings.")
    ] = None
    network: Annotated[
        NetworkWanted | None, Field(description="What the build may reach, beside the package index for `packages`.")
    ] = None
    index: Annotated[
        str | None,
        Field(
            max_length=500,
            pattern=r"^https?://[^\s@/]+(/\S*)?$",
            description="The package index, where it is not the server's.",
        ),
    ] = None
    languages: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}(\.[A-Za-z0-9]{1,16})?$")],
            Annotated[str, Field(min_length=1, max_length=1000, json_schema_extra={"pattern": NO_NUL})],
        ],
        Field(
            max_length=16,
            description="Further languages of code: by name, with `.extension` of the file or without, the command "
            "line that runs a file with code, `{file}`, which otherwise comes last.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = {}
    ready: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=8192,
            description="A command for `sh -e` that has to succeed in an environment of the template within a minute.",
            json_schema_extra={"pattern": NO_NUL},
        ),
    ] = None
    public: Annotated[bool, Field(description="Everybody may make environments from it; for admins.")] = False
    rebuild: Annotated[bool, Field(description="Build it also when the newest version is the same.")] = False

    @field_validator("languages")
    @classmethod
    def _check_languages(cls, languages: dict[str, str]) -> dict[str, str]:
        for name, command in languages.items():
            if _language(name, command).name == "python":
                raise ValueError("python is that of the interpreter")
        return languages

    def wanted(self) -> NewTemplate:
        """For the use case."""
        recipe = Recipe(
            base=self.base if isinstance(self.base, str) else "",
            tar=self.base.tar if isinstance(self.base, TarBase) else None,
            image=self.base.image if isinstance(self.base, ImageBase) else None,
            packages=tuple(self.packages),
            files=tuple(file.file() for file in self.files),
            env=self.env,
            setup=tuple(self.setup),
            preload=tuple(self.preload),
            limits=AskedLimits() if self.limits is None else self.limits.asked(),
            network=NetworkRules() if self.network is None else self.network.rules(),
            index=self.index,
            languages=tuple(starmap(_language, self.languages.items())),
            ready=self.ready,
            apt=tuple(self.apt),
        )
        return NewTemplate(self.name, recipe, self.public, self.rebuild)


class TemplateAnswer(Model):
    """What environments can be made from; `isolations` are the classes that they can have.

    From `template_id` on the fields are those of a template that was built; of the server's own they are null.
    """

    model_config = with_example(_BUILT, _OWN)

    name: str
    language: str
    language_version: str
    available: bool
    unavailable_reason: str | None
    limits: LimitsAnswer
    isolation: Annotated[Isolation | None, Field(description="The class of environments that ask for none.")]
    isolations: list[Isolation]
    languages: Annotated[list[str], Field(description="What code can be written in.")]
    preload: Annotated[list[str], Field(description="What is imported beforehand.")]
    template_id: str | None = None
    owner_id: str | None = None
    version: int | None = None
    status: TemplateStatus | None = None
    status_reason: Annotated[str | None, Field(description="Why the build has failed.")] = None
    awaits_upload: Annotated[
        bool | None, Field(description="Whether the build waits for the archive that its `base` names.")
    ] = None
    base: str | TarBase | ImageBase | None = None
    public: bool | None = None
    packages: list[str] | None = None
    apt: Annotated[list[str] | None, Field(description="The Debian packages of its recipe.")] = None
    digest: Annotated[str | None, Field(description="The same of what would be built the same way.")] = None
    size_bytes: Annotated[int | None, Field(description="Of its files together.")] = None
    files: int | None = None
    creation_time: datetime | None = None
    finished_at: datetime | None = None
    lock: Annotated[
        str | None, Field(description="The packages that were installed, with hashes; only of a single template.")
    ] = None
    apt_lock: Annotated[
        list[str] | None,
        Field(
            description="The Debian packages that are in its root file system since builds have put them there, as "
            "`name:architecture=version`; only of a single template."
        ),
    ] = None

    @classmethod
    def of(cls, template: Template, *, with_lock: bool = False, awaits_upload: bool = False) -> "TemplateAnswer":
        """From the record."""
        return cls(
            name=template.name,
            language=template.language,
            language_version=template.language_version,
            available=template.available,
            unavailable_reason=template.unavailable_reason,
            limits=LimitsAnswer.of(template.limits),
            isolation=template.isolation,
            isolations=list(template.isolations),
            languages=list(template.language_names),
            preload=list(template.preload),
            **(
                {}
                if template.built is None
                else {"awaits_upload": awaits_upload, **_describe(template.built, with_lock=with_lock)}
            ),
        )


def _describe(row: BuiltTemplate, *, with_lock: bool) -> dict[str, Any]:
    return {
        "template_id": row.template_id,
        "owner_id": row.owner_id,
        "version": row.version,
        "status": row.status,
        "status_reason": row.status_reason,
        "base": row.recipe.base or describe_root(row.recipe),
        "public": row.is_public,
        "packages": list(row.recipe.packages),
        "apt": list(row.recipe.apt),
        "digest": row.digest,
        "size_bytes": row.size_bytes,
        "files": row.files,
        "creation_time": row.created_at,
        "finished_at": row.finished_at,
        "lock": row.lock if with_lock else None,
        "apt_lock": list(row.root.apt_lock if row.root is not None else ()) if with_lock else None,
    }


class TemplatesAnswer(Model):
    """All templates by name; there are few, so that one page holds them."""

    model_config = with_example({"templates": [_OWN], "next_cursor": None})

    templates: list[TemplateAnswer]
    next_cursor: Cursor = None


class ListTemplates(Model):
    """Which templates are wanted."""

    model_config = PageQuery.model_config

    name: Annotated[str | None, Field(max_length=128, description="All versions of this one, newest first.")] = None


class DeleteTemplate(Model):
    """How it is to be deleted."""

    model_config = PageQuery.model_config

    force: Annotated[
        bool,
        Field(strict=False, description="Also where there are snapshots, with which nothing can begin any more then."),
    ] = False


class TemplateDeletedAnswer(Model):
    """What was deleted."""

    model_config = with_example({"name": "data", "versions": [1, 2], "status": "deleted"})

    name: str
    versions: list[int]
    status: Literal["deleted"] = "deleted"
