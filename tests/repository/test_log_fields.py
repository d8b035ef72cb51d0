"""What the log is told can be read there."""

import ast
from collections.abc import Iterator
from pathlib import Path

from sandgate.telemetry.secrets import is_secret_name

ROOT = Path(__file__).resolve().parents[2] / "src" / "sandgate"


def _fields(path: Path) -> Iterator[str]:
    """The names of what one file logs."""
    text = path.read_text(encoding="utf-8")
    if "_log." not in text:
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="_log")), keywords=keywords):
                yield from (keyword.arg for keyword in keywords if keyword.arg)


def test_nothing_is_logged_under_a_name_that_is_masked() -> None:
    """Such a name, as ``code``, is for what must not be seen; the reason of an error has to be."""
    found = {(path.name, name) for path in ROOT.rglob("*.py") for name in _fields(path)}
    assert len(found) > 50
    assert [pair for pair in sorted(found) if is_secret_name(pair[1])] == []
