"""The templates of this server: one for each version of Python, and ``python`` for the newest."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sandgate.core.errors import ConfigurationError, TemplateNotFound, TemplateUnavailable, UnknownTemplate
from sandgate.core.ids import UserId
from sandgate.core.language import BUILT_IN, Language
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.core.template import Template
from sandgate.environments.languages import find_languages

#: Listed whether or not an interpreter was found.
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
#: Listed only where an interpreter was found.
NEW_VERSIONS = ("3.14",)

_LANGUAGE = "python"
_NEWEST = "python"
_INSTALLED_IF_NONE = "python-3.13"


class FoundInterpreter(Protocol):
    """An interpreter that was found on this machine."""

    @property
    def full_version(self) -> str:
        """As in ``3.9.18``."""
        ...

    @property
    def executable(self) -> str:
        """Its absolute path."""
        ...

    @property
    def prefix(self) -> str:
        """The folder that it needs."""
        ...


class TemplateCatalogue:
    """Implements :class:`sandgate.environments.base.Templates`, from interpreters by minor version (``3.9``)."""

    def __init__(
        self,
        interpreters: Mapping[str, FoundInterpreter],
        limits: Limits,
        isolations: Sequence[Isolation] = (),
        contained: Collection[str] = (),
        languages: Sequence[Language] = BUILT_IN,
    ) -> None:
        """``isolations`` are the classes that the server holds, its own first; of ``languages`` each template has
        those whose programs are there.

        The templates of the names in ``contained`` are of the gvisor class when nothing else is asked for. Raises
        ``ConfigurationError`` when there is none of such a name.
        """
        listed = [version for version in (*VERSIONS, *NEW_VERSIONS) if version in VERSIONS or version in interpreters]
        made = [_make_template(version, interpreters.get(version), limits, languages) for version in listed]
        self._templates = {
            template.name: replace(template, isolations=_order(isolations, template.name in contained))
            for template in [_make_newest(made, limits), *made]
        }
        for name in set(contained) - set(self._templates):
            raise ConfigurationError(
                f"SANDGATE_GVISOR_TEMPLATES names {name!r}, and there is no such template; there are: "
                + ", ".join(self._templates)
            )

    def list(self, user_id: UserId | None = None) -> Sequence[Template]:  # noqa: ARG002 - everybody has these
        """See :class:`sandgate.environments.base.Templates`; versions in the order of their numbers."""
        return tuple(self._templates.values())

    def get(self, name: str, user_id: UserId | None = None) -> Template:  # noqa: ARG002 - everybody has these
        """See :class:`sandgate.environments.base.Templates`."""
        template = self._templates.get(name)
        if template is None:
            raise TemplateNotFound(f"There is no template {name!r}; there are: {', '.join(self._templates)}")
        return template

    def check(self, name: str, user_id: UserId | None = None) -> Template:  # noqa: ARG002 - same
        """See :class:`sandgate.environments.base.Templates`."""
        template = self._templates.get(name)
        if template is None:
            known = list(self._templates)
            raise UnknownTemplate(
                f"There is no template {name!r}; there are: {', '.join(known)}", {"template": name, "known": known}
            )
        if template.unavailable_reason is not None:
            raise TemplateUnavailable(
                f"The template {name} cannot be used here: {template.unavailable_reason}",
                {"template": name, "reason": template.unavailable_reason},
            )
        return template


def _order(isolations: Sequence[Isolation], contained: bool) -> tuple[Isolation, ...]:
    """The classes, first the one that is taken unasked."""
    first = Isolation.GVISOR if contained else None
    return tuple(sorted(isolations, key=lambda isolation: isolation is not first))


def _make_template(
    version: str, found: FoundInterpreter | None, limits: Limits, languages: Sequence[Language]
) -> Template:
    """The template of a minor version."""
    name = f"{_LANGUAGE}-{version}"
    if found is None:
        return Template(name, _LANGUAGE, version, None, None, limits, unavailable_reason=_lacks(version, name))
    there = find_languages(languages, found.prefix)
    return Template(name, _LANGUAGE, found.full_version, found.executable, found.prefix, limits, languages=there)


def _make_newest(templates: Sequence[Template], limits: Limits) -> Template:
    """The template ``python``: the newest of the others that is there."""
    available = [template for template in templates if template.available]
    if available:
        return replace(available[-1], name=_NEWEST)
    reason = _lacks("", _INSTALLED_IF_NONE)
    return Template(_NEWEST, _LANGUAGE, "", None, None, limits, unavailable_reason=reason)


def _lacks(version: str, name: str) -> str:
    """Why there is no template, and what brings it."""
    wanted = f"Python {version}".strip()
    return f"no {wanted} was found on this machine; run `sandgate template install {name}` and restart the server"
