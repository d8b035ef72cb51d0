"""Definitions from files: JSON and YAML, the line of everything, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.cli.exits import WrongUsage
from sandgate.cli.workflows import documents
from sandgate.cli.workflows.documents import Document, read_definition, read_document
from sandgate.cli.workflows.positions import DocumentRefused
from sandgate.cli.workflows.yaml_text import parse_yaml

YAML = """\
# a comment
name: a
steps:
  - name: s
    retry: {on: [failed, no], since: 2026-01-01}
    config: &shared
      code: |
        print(1)
      hexadecimal: 0x1F
  - config: *shared
    texts: ["1", 'null', !!str 12, yes, 1_000, 12:30:45]
    numbers: [1, -2, 0o17, 1e3, .5, 0123]
    others: [~, null, , true, FALSE]
"""
VALUE = {
    "name": "a",
    "steps": [
        {
            "name": "s",
            "retry": {"on": ["failed", "no"], "since": "2026-01-01"},
            "config": {"code": "print(1)\n", "hexadecimal": 31},
        },
        {
            "config": {"code": "print(1)\n", "hexadecimal": 31},
            "texts": ["1", "null", "12", "yes", "1_000", "12:30:45"],
            "numbers": [1, -2, 15, 1000.0, 0.5, 123],
            "others": [None, None, None, True, False],
        },
    ],
}


@pytest.mark.parametrize(("name", "text"), [("e.yaml", ""), ("e.yml", "# nothing\n"), ("e", " \n"), ("e.json", "null")])
def test_an_empty_file_is_refused_where_it_is_read(tmp_path: Path, name: str, text: str) -> None:
    """Nothing of it is sent to a server, which would speak of how it was sent."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DocumentRefused, match="there is no definition in it"):
        read_definition(str(path))


def json_values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Values of JSON with such texts in them."""
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=20,
    )


# YAML has no escapes of pairs, and takes no control characters as they are.
VISIBLE = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")))


def read(folder: Path, text: str | bytes, name: str = "x.yaml") -> Document:
    """The document in a file."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(str(path))


def test_yaml_means_what_json_can_say(tmp_path: Path) -> None:
    """`on` and `no` are texts, dates too; numbers and nulls are those of the core schema of YAML 1.2."""
    document = read(tmp_path, YAML.replace("[~, null, , true", "[~, null, Null, true"))
    assert document.value == VALUE


@pytest.mark.parametrize(
    ("pointer", "line"),
    [
        ("", 2), ("/name", 2), ("/steps/0", 4), ("/steps/0/config/code", 7), ("/steps/1/config", 10),
        ("/steps/1/texts/3", 11), ("/steps/1/config/code", 10), ("/steps/0/nothing/there", 4), ("/nothing", 2),
    ],
)  # fmt: skip
def test_a_pointer_has_a_line(tmp_path: Path, pointer: str, line: int) -> None:
    """What is not there has the line of what it would stand in."""
    assert read(tmp_path, YAML.replace(", ,", ", ~,")).line_of(pointer) == line


def test_json_has_lines_too(tmp_path: Path) -> None:
    """Of values in lists, of keys, of names with the signs of pointers."""
    document = read(tmp_path, '{"a": [1,\n {"b\\u00e9":\n "x\\"{,"}],\n "c~/": {}}', "x.json")
    assert document.value == {"a": [1, {"bé": 'x"{,'}], "c~/": {}}
    assert dict(document.lines) == {"": 1, "/a": 1, "/a/0": 1, "/a/1": 2, "/a/1/bé": 2, "/c~0~1": 4}


def pointers(value: Any, base: str = "") -> set[str]:
    """The pointers of a value and of all in it."""
    members: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        members = [(key.replace("~", "~0").replace("/", "~1"), member) for key, member in value.items()]
    elif isinstance(value, list):
        members = [(str(index), member) for index, member in enumerate(value)]
    return {base}.union(*(pointers(member, f"{base}/{key}") for key, member in members))


@given(json_values(st.text()))
def test_every_value_of_json_is_found(value: Any) -> None:
    """JSON reads back as itself, with a line for each pointer that there is and for no other."""
    document = documents._parse("x.json", json.dumps(value, indent=1))
    assert document.value == value
    assert set(document.lines) == pointers(value)


@given(json_values(VISIBLE))
def test_json_is_yaml_as_well(value: Any) -> None:
    """What a JSON file says, the same text in a YAML file says too."""
    parsed, lines = parse_yaml(json.dumps(value, indent=1, ensure_ascii=False), "x.yaml")
    assert parsed == value
    assert set(lines) == pointers(value)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is given twice; it is in line 1"),
        ("a:\n  - {x: 1, 'x': 2}", 2, "the key 'x' is given twice"),
        ("a: &x\n  - *x", 2, "something that it is part of"),
        ("a: *x", 1, "not defined before"),
        ("? [a]\n: 1", 1, "a key has to be a text"),
        ("a: &k b\n*k : 1", 2, "a key has to be written out"),
        ("a: !!python/object/apply:os.system ['x']", 1, "tag"),
        ("a: !!int 3", 1, "tag"),
        ("a: !mine {}", 1, "tag"),
        ("b: &b {x: 1}\na:\n  <<: *b", 3, "merge keys"),
        ("a: .nan", 1, "no number in JSON"),
        ("a: 1e999", 1, "no number in JSON"),
        ("a: 1\n---\nb: 1", 2, "a second document"),
        ("a: [1", 2, "no YAML"),
        ("a:\n\t- 1", 2, "no YAML"),
        ("a: \x07", 1, "no YAML"),
        ("[" * 200, 1, "more than 100 levels"),
        ("a: " + "- " * 200, 1, "no YAML"),
        ("k" * 2000 + ": 1", 1, "no YAML"),
        ("? " + "k" * 2000 + "\n: 1", 1, "more than 1024 characters"),
        (b"a: 1\nb: \xff", 2, "no text in UTF-8"),
    ],
)
def test_what_is_no_definition_in_yaml_is_refused(tmp_path: Path, text: str | bytes, line: int, problem: str) -> None:
    """With the file and the line, as compilers write it."""
    with pytest.raises(DocumentRefused) as caught:
        read(tmp_path, text)
    assert problem in caught.value.message
    assert f"x.yaml:{line}: " in caught.value.message
    assert caught.value.details["line"] == line


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1,\n"a": 2}', ":2: the key 'a' is given twice; it is in line 1"),
        ('{"a": 1,\n"\\u0061": 2}', ":2: the key 'a' is given twice"),
        ('{"a":\n 1,}', ":2: this is no JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "larger than numbers can be"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ("[" * 150 + "]" * 150, "more than 100 levels"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
        ("", ":1: this is no JSON"),
    ],
)
def test_what_is_no_definition_in_json_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """What a lenient reader would take is not taken either."""
    with pytest.raises(DocumentRefused) as caught:
        read(tmp_path, text, "x.json")
    assert problem in caught.value.message


def laughs(levels: int) -> str:
    """A list of nine, each the list before: nine to the power of levels."""
    first = "a0: &a0 [x, x, x, x, x, x, x, x, x]"
    more = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join([first, *more])


BOMBS = {
    "a billion laughs": (laughs(12), "is larger than"),
    "a large text many times": (
        "a: &a " + "x" * 1_000_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]",
        "is larger than",
    ),
    "deeper with each alias": (
        "\n".join(["a0: &a0 [x]", *(f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, 200))]),
        "levels",
    ),
    "long keys inside each other": ("{" + ": {".join(["k" * 1000] * 50) + "}" * 50, "are too long"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_cannot_become_large(name: str) -> None:
    """Aliases may be used, but what they stand for counts; it is known within seconds."""
    text, problem = BOMBS[name]
    started = time.process_time()
    with pytest.raises(DocumentRefused, match=problem):
        parse_yaml(text, "x.yaml")
    assert time.process_time() - started < 20


def test_aliases_within_bounds_are_filled_in() -> None:
    """Long keys and many aliases that stay small are no attack."""
    text = "? " + "k" * 1000 + "\n: {" + "x" * 1000 + ": &a [" + "1, " * 10_000 + "]}\nagain: *a"
    value, _ = parse_yaml(text, "x.yaml")
    assert value["again"] == [1] * 10_000
    assert yaml_size(laughs(5)) == 9**5


def yaml_size(text: str) -> int:
    """How many leaves the last list has."""
    value, _ = parse_yaml(text, "x.yaml")

    def leaves(part: Any) -> int:
        return sum(map(leaves, part)) if isinstance(part, list) else 1

    return leaves(list(value.values())[-1])


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any server takes."""
    monkeypatch.setattr(documents, "LARGEST_BYTES", 100)
    with pytest.raises(DocumentRefused, match="more than 100 bytes"):
        read(tmp_path, "a: " + "x" * 100)


def test_a_file_that_cannot_be_read_is_a_mistake_in_the_call(tmp_path: Path) -> None:
    """A missing one, a folder, a name that can be none."""
    for path in (tmp_path / "nothing", tmp_path, "a\0b"):
        with pytest.raises(WrongUsage, match="cannot be read"):
            read_document(str(path))


def test_what_has_no_name_is_known_by_its_first_sign(tmp_path: Path) -> None:
    """Objects of JSON begin with a brace; a mark of byte order is no part of the text."""
    assert read(tmp_path, '\ufeff {"a": 1}', "plain").value == {"a": 1}
    assert read(tmp_path, "\ufeffa: 1", "plain").value == {"a": 1}
    with pytest.raises(DocumentRefused, match="no JSON"):
        read(tmp_path, "{a: 1}", "plain")
    assert read(tmp_path, "{a: 1}", "x.yml").value == {"a": 1}
