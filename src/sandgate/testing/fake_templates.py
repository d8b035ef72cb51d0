"""A catalogue of templates that needs no interpreter."""

from collections.abc import Sequence
from dataclasses import replace

from sandgate.core.errors import TemplateNotFound, TemplateUnavailable, UnknownTemplate
from sandgate.core.ids import UserId
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.core.template import Template


class FakeTemplates:
    """``Templates`` with ``python`` and ``python-3.9``, which are available, and ``python-3.8``, which is not."""

    def __init__(self, limits: Limits | None = None, isolations: tuple[Isolation, ...] = (Isolation.STANDARD,)) -> None:
        limits = limits or Limits()
        made = (
            Template("python", "python", "3.13.0", "/usr/bin/python3", "/usr", limits),
            Template("python-3.8", "python", "3.8", None, None, limits, unavailable_reason="no interpreter was found"),
            Template("python-3.9", "python", "3.9.20", "/usr/bin/python3.9", "/usr", limits),
        )
        self._templates = {template.name: replace(template, isolations=isolations) for template in made}

    def list(self, user_id: UserId | None = None) -> Sequence[Template]:  # noqa: ARG002 - everybody has these
        """See ``Templates``."""
        return list(self._templates.values())

    def get(self, name: str, user_id: UserId | None = None) -> Template:  # noqa: ARG002 - everybody has these
        """See ``Templates``."""
        if name not in self._templates:
            raise TemplateNotFound(f"There is no template {name}")
        return self._templates[name]

    def check(self, name: str, user_id: UserId | None = None) -> Template:  # noqa: ARG002 - same
        """See ``Templates``."""
        if name not in self._templates:
            known = sorted(self._templates)
            raise UnknownTemplate(f"There is no template {name}", {"template": name, "known": known})
        template = self._templates[name]
        if template.unavailable_reason is not None:
            reason = template.unavailable_reason
            raise TemplateUnavailable(f"{name} cannot be used: {reason}", {"template": name, "reason": reason})
        return template
