"""What the code of a step runs in, by name, and whose names those are."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sandgate.core.built import BuiltTemplate
from sandgate.core.errors import RequestRefused, TemplateNotFound, TemplateUnavailable, TooManyLiveTemplates
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.run import Run
from sandgate.core.states import TemplateStatus
from sandgate.core.template import Template
from sandgate.core.workflow import Json
from sandgate.workflows import names
from sandgate.workflows.suggestions import hint, shown

_NEWEST = "python"
# What a step before has run in is on its way out.
_PATIENCE_S = 15.0
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class StepTemplate:
    """The template of a name among those that a user may use; of the server's own only for ``owner_id`` None."""

    name: str = _NEWEST
    owner_id: UserId | None = None

    @classmethod
    def of(cls, run: Run, name: str | None) -> "StepTemplate":
        """The one of this name (None: the newest Python) for a run, in the version that the run began with."""
        name = name or _NEWEST
        return cls(run.templates.get(name, name), run.owner_id)


class KnownTemplates(Protocol):
    """What sandboxes are made from; ``user_id`` None: what everybody has."""

    def list(self, user_id: UserId | None = None) -> Sequence[Template]:
        """All of them."""
        ...

    def get(self, name: str, user_id: UserId | None = None) -> Template:
        """One, whether it can be used or not. Raises ``TemplateNotFound``."""
        ...

    def check(self, name: str, user_id: UserId | None = None) -> Template:
        """One that can be used. Raises ``UnknownTemplate``, ``TemplateUnavailable``."""
        ...


class TemplatePlaces(Protocol):
    """Counts the built templates that each user has in use."""

    def check_template(self, user_id: UserId, template: str) -> None:
        """Raises ``TooManyLiveTemplates`` where there is no place for one of this version."""
        ...

    def count_template(self, user_id: UserId, template: str) -> None:
        """Count a sandbox of a version, whatever the limits say."""
        ...

    def give_back_template(self, user_id: UserId, template: str) -> None:
        """Count one less."""
        ...


class TemplatePlacing:
    """Which sandboxes take a place of a built template, and for whom; ``places`` None: there is no bound."""

    def __init__(self, places: TemplatePlaces | None) -> None:
        self._places = places
        self._placed: dict[EnvironmentId, tuple[UserId, str]] = {}

    async def take(self, owner_id: UserId | None, template: Template, environment_id: EnvironmentId) -> None:
        """Count one that is about to be made. Raises ``TooManyLiveTemplates`` when there is no place soon."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while self._places is not None and template.built is not None and owner_id is not None:
            try:
                self._places.check_template(owner_id, template.reference)
                break
            except TooManyLiveTemplates:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_PAUSE_S)
        self.count(owner_id, template, environment_id)

    def count(self, owner_id: UserId | None, template: Template, environment_id: EnvironmentId) -> None:
        """Count one, once, whatever the limits say."""
        if template.built is None or owner_id is None or environment_id in self._placed:
            return
        if self._places is not None:
            self._places.count_template(owner_id, template.reference)
        self._placed[environment_id] = owner_id, template.reference

    def count_of(self, template: BuiltTemplate) -> int:
        """How many there are of a version."""
        placed = [owner_id for owner_id, reference in self._placed.values() if reference == template.reference]
        return sum(template.is_public or owner_id == template.owner_id for owner_id in placed)

    def give_back(self, environment_id: EnvironmentId) -> None:
        """It is there no more."""
        placed = self._placed.pop(environment_id, None)
        if placed is not None and self._places is not None:
            self._places.give_back_template(*placed)


@dataclass(frozen=True, slots=True)
class NamedTemplates:
    """What is known of the templates that a definition names. It is read in a thread, where nothing is looked up."""

    problems: Mapping[str, str | None]
    known: tuple[str, ...]

    @classmethod
    def of(cls, raw: Json, templates: KnownTemplates, owner_id: UserId) -> "NamedTemplates":
        """Of those that its owner may use; whatever ``raw`` is."""
        problems: dict[str, str | None] = {}
        for name in set(_named_in(raw)):
            with suppress(TemplateNotFound):
                problems[name] = _find_problem(templates, name, owner_id)
        return cls(problems, tuple(each.name for each in templates.list(owner_id)))

    def find_problem(self, name: str) -> str | None:
        """What is wrong with a name; None when steps can use it, or will be able to."""
        if name in self.problems:
            return self.problems[name]
        return f"There is no template {shown(name)}{hint(name, self.known)}"


def _named_in(raw: Json) -> Iterator[str]:
    """What may be the name of a template; of more steps than there may be, those at the beginning."""
    document = raw if isinstance(raw, dict) else {}
    owners: list[Json] = [document.get("defaults")]
    for key in ("steps", "on_error", "finally"):
        steps = document.get(key)
        owners += [step.get("config") for step in _first(steps) if isinstance(step, dict)]
    for owner in owners:
        name = owner.get("template") if isinstance(owner, dict) else None
        if isinstance(name, str) and len(name) <= names.MAX_LABEL:
            yield name


def _first(steps: Json) -> Sequence[Json]:
    return steps[: names.MAX_STEPS] if isinstance(steps, list) else ()


def _find_problem(templates: KnownTemplates, name: str, owner_id: UserId) -> str | None:
    """Raises ``TemplateNotFound``.

    One that is being built may be ready when a run begins, and an interpreter may be installed by then.
    """
    built = templates.get(name, owner_id).built
    if built is None or built.status is TemplateStatus.BUILDING:
        return None
    try:
        templates.check(name, owner_id)
    except TemplateUnavailable as refusal:
        return refusal.message
    return None


def find_version(templates: KnownTemplates, name: str, owner_id: UserId) -> str | None:
    """What names the version of a built template that is to be used now; None for any other, or when there is none."""
    try:
        template = templates.check(name, owner_id)
    except RequestRefused:
        return None
    return None if template.built is None else template.reference
