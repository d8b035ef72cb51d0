"""Templates: one for each Python, whether or not it is there."""

from dataclasses import dataclass

import pytest

from sandgate.core.errors import ConfigurationError, TemplateNotFound, TemplateUnavailable, UnknownTemplate
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.environments.base import Templates
from sandgate.environments.templates import TemplateCatalogue

LIMITS = Limits(memory_bytes=123 * 1024**2)
ALWAYS = ["python", "python-3.8", "python-3.9", "python-3.10", "python-3.11", "python-3.12", "python-3.13"]


@dataclass(frozen=True)
class Found:
    """An interpreter."""

    full_version: str

    @property
    def executable(self) -> str:
        """Its path."""
        return f"/opt/{self.full_version}/bin/python"

    @property
    def prefix(self) -> str:
        """Its folder."""
        return f"/opt/{self.full_version}"


def catalogue(*full_versions: str) -> TemplateCatalogue:
    """The templates of a machine with these interpreters."""
    return TemplateCatalogue({version.rpartition(".")[0]: Found(version) for version in full_versions}, LIMITS)


def test_what_was_found_can_be_used() -> None:
    """With its interpreter, its folder and the limits of the settings."""
    template = catalogue("3.9.18").check("python-3.9")
    assert (template.name, template.language, template.language_version) == ("python-3.9", "python", "3.9.18")
    assert (template.interpreter, template.prefix) == ("/opt/3.9.18/bin/python", "/opt/3.9.18")
    assert template.limits == LIMITS
    assert template.available


def test_what_was_not_found_is_listed_and_refused() -> None:
    """With the command that brings it."""
    templates = catalogue("3.9.18")
    assert not templates.get("python-3.12").available
    with pytest.raises(TemplateUnavailable) as refused:
        templates.check("python-3.12")
    assert "sandgate template install python-3.12" in refused.value.message
    assert refused.value.details == {
        "template": "python-3.12",
        "reason": templates.get("python-3.12").unavailable_reason,
    }


def test_all_are_listed_in_the_order_of_their_numbers() -> None:
    """The newest Python is listed only where it was found."""
    assert [template.name for template in catalogue().list()] == ALWAYS
    assert [template.name for template in catalogue("3.14.0").list()] == [*ALWAYS, "python-3.14"]


@pytest.mark.parametrize(
    ("full_versions", "newest"),
    [(["3.9.18"], "3.9.18"), (["3.13.0", "3.9.18"], "3.13.0"), (["3.14.0", "3.8.1"], "3.14.0")],
)
def test_python_is_the_newest_that_is_there(full_versions: list[str], newest: str) -> None:
    """By number, whatever order they were found in."""
    template = catalogue(*full_versions).check("python")
    assert (template.name, template.language_version) == ("python", newest)


def test_without_any_interpreter_nothing_can_be_used() -> None:
    """The newest, too, says what to do."""
    with pytest.raises(TemplateUnavailable, match="sandgate template install python-3"):
        catalogue().check("python")


@pytest.mark.parametrize("name", ["", "python-2.7", "python-3.14", "Python", "python-3.9 ", "../python", "\ud800"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    """In a body it is a bad request, in a path it is not found."""
    templates: Templates = catalogue("3.9.18")
    with pytest.raises(UnknownTemplate) as refused:
        templates.check(name)
    assert refused.value.details == {"template": name, "known": ALWAYS}
    with pytest.raises(TemplateNotFound):
        templates.get(name)


def test_a_template_can_have_a_class_of_its_own() -> None:
    """It is the first of those that environments can have; a name that no template has starts nothing."""
    held = (Isolation.STANDARD, Isolation.GVISOR)
    templates = TemplateCatalogue({"3.9": Found("3.9.18")}, LIMITS, held, ["python-3.9"])
    assert templates.get("python-3.9").isolations == (Isolation.GVISOR, Isolation.STANDARD)
    assert templates.get("python").isolations == held
    assert templates.get("python").isolation is Isolation.STANDARD
    assert catalogue("3.9.18").get("python").isolation is None
    with pytest.raises(ConfigurationError, match="SANDGATE_GVISOR_TEMPLATES"):
        TemplateCatalogue({}, LIMITS, held, ["ruby"])
