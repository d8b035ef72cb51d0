"""Languages: declared by the settings, listed where their programs are, chosen by name."""

from pathlib import Path

import pytest

from sandgate.core.errors import ConfigurationError, UnknownLanguage
from sandgate.core.language import BUILT_IN, Language
from sandgate.core.limits import Limits
from sandgate.core.template import Template, choose_language
from sandgate.environments.languages import find_languages, parse_languages

PERL = Language("perl", (("perl", "-w", "{file}"),), ".pl")


def test_declared_ones_come_behind_the_built_in_ones() -> None:
    """With their command, and how the name of their file ends, if that matters."""
    assert parse_languages("") == tuple(BUILT_IN)
    found = parse_languages(" perl.pl = perl -w {file} ; awk=awk -f ;")
    assert found == (*BUILT_IN, PERL, Language("awk", (("awk", "-f"),), ""))


def test_a_built_in_one_can_be_replaced() -> None:
    """As where node has another name."""
    by_name = {language.name: language for language in parse_languages("javascript.js=nodejs")}
    assert by_name["javascript"].commands == (("nodejs",),)


@pytest.mark.parametrize("text", ["perl", "perl.pl=", "=perl", "a b=perl", "python=python3", "perl.=perl", "x='"])
def test_what_is_no_language_is_refused(text: str) -> None:
    """At the start of the server, and named."""
    with pytest.raises(ConfigurationError, match="SANDGATE_LANGUAGES"):
        parse_languages(text)


def test_only_what_is_there_is_listed(tmp_path: Path) -> None:
    """In the interpreter's folder or where every sandbox sees programs, and not by a link that leads elsewhere."""
    prefix, elsewhere = tmp_path / "prefix" / "bin", tmp_path / "elsewhere"
    prefix.mkdir(parents=True)
    for file in (prefix / "mine", elsewhere):
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    (prefix / "linked").symlink_to(elsewhere)
    made = [Language(name, (("none",), (name,))) for name in ("mine", "linked", "sh", "nowhere-to-be-found")]
    assert [language.name for language in find_languages(made, str(prefix.parent))] == ["mine", "sh"]


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    """The interpreter's own needs no command."""
    template = Template("python-3.9", "python", "3.9.18", "/x", "/", Limits(), languages=(PERL,))
    assert choose_language(template, "python") is None
    assert choose_language(template, "perl") is PERL
    with pytest.raises(UnknownLanguage) as refused:
        choose_language(template, "cobol")
    assert refused.value.details == {"language": "cobol", "known": ["python", "perl"]}
