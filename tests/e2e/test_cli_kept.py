"""The commands about snapshots, copies, volumes and templates against a real server."""

import json
import os
from pathlib import Path

import pytest

from tests.e2e.command_shell import Shell

pytestmark = [pytest.mark.needs_root_namespaces]


def test_the_life_of_a_snapshot(line: Shell) -> None:
    """Kept of an environment, listed, begun from by name, deleted."""
    line.expect(0, "environment", "create", "kept-from")
    line.expect(0, "files", "put", "kept-from", "-", "data.txt", stdin="prepared")
    made = line.read("snapshot", "create", "kept-from", "--name", "prepared", "-m", "step=one")
    assert (made["files"], made["metadata"]) == (1, {"step": "one"})
    listed = line.read("snapshot", "list", "--name", "prepared")["snapshots"]
    assert [each["snapshot_id"] for each in listed] == [made["snapshot_id"]]
    assert made["snapshot_id"] in line.expect(0, "snapshot", "list", "--template", "python").stdout
    line.expect(0, "environment", "create", "begun", "--snapshot", "prepared")
    assert line.expect(0, "files", "get", "begun", "data.txt", "-").stdout == "prepared"
    code = "print(open('data.txt').read())"
    assert line.expect(0, "run", "--snapshot", "prepared", "-c", code).stdout == "prepared\n"
    assert json.loads(line.expect(0, "snapshot", "get", "prepared").stdout) == made
    assert line.expect(0, "snapshot", "delete", "prepared").stdout == f"{made['snapshot_id']} was deleted.\n"
    assert "No snapshot of yours is called 'prepared'" in line.expect(1, "snapshot", "get", "prepared").stderr
    for name in ("kept-from", "begun"):
        line.expect(0, "environment", "delete", name)


def test_one_of_several_snapshots_of_a_name(line: Shell) -> None:
    """Is not guessed."""
    line.expect(0, "environment", "create", "twice")
    both = [line.expect(0, "snapshot", "create", "twice", "--name", "twin").stdout.strip() for _each in range(2)]
    refused = line.expect(1, "environment", "create", "begun", "--snapshot", "twin").stderr
    assert all(each in refused for each in both)
    for each in both:
        line.expect(0, "snapshot", "delete", each)
    line.expect(0, "environment", "delete", "twice")


def test_copies_of_an_environment(line: Shell) -> None:
    """As many as asked for, with its files; their ids, or with ``--json`` all of them."""
    original = line.expect(0, "environment", "create", "original").stdout.strip()
    line.expect(0, "files", "put", "original", "-", "data.txt", stdin="copied")
    forked = line.expect(0, "environment", "fork", "original", "-n", "2", "--name", "copy").stdout.split()
    assert line.expect(0, "files", "get", forked[1], "data.txt", "-").stdout == "copied"
    (third,) = line.read("environment", "fork", "original", "--timeout", "60", "-m", "a=b")["environments"]
    assert (third["forked_from"], third["metadata"], third["timeout"]) == (original, {"a": "b"}, 60)
    for each in (original, *forked, third["environment_id"]):
        line.expect(0, "environment", "delete", each)


def test_the_life_of_a_volume(line: Shell) -> None:
    """Made, given to environments for writing and reading, kept while one has it, deleted with it by force."""
    made = line.read("volume", "create", "cli-data", "--size-mb", "16")
    assert (made["name"], made["size_mb"]) == ("cli-data", 16)
    code = "import os; f = open('/data/kept', 'w'); f.write('kept'); f.flush(); os.fsync(f.fileno())"
    line.expect(0, "run", "--volume", "cli-data:/data", "-c", code)
    reader = line.expect(0, "environment", "create", "reader", "--volume", "cli-data:/data:ro").stdout.strip()
    assert line.expect(0, "run", "-e", reader, "-c", "print(open('/data/kept').read())").stdout == "kept\n"
    failed = line.expect(1, "run", "-e", reader, "-c", "open('/data/more', 'w')").stderr
    assert os.strerror(30) in failed
    seen = json.loads(line.expect(0, "volume", "get", "cli-data").stdout)
    assert (seen["volume_id"], seen["environment_ids"]) == (made["volume_id"], [reader])
    assert line.read("volume", "list", "--name", "cli-data")["volumes"] == [seen]
    assert line.expect(0, "volume", "list").stdout.splitlines()[1].split()[:2] == ["cli-data", "16"]
    assert reader in line.expect(1, "volume", "delete", "cli-data").stderr
    assert line.expect(0, "volume", "delete", "cli-data", "--force").stdout == f"{made['volume_id']} was deleted.\n"
    assert "No volume of yours is called 'cli-data'" in line.expect(1, "volume", "get", "cli-data").stderr


@pytest.mark.needs_python39
def test_the_life_of_a_template(line: Shell, tmp_path: Path) -> None:
    """What its build says is shown; a build that fails ends with exit code 1."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: typed\nbase: python-3.9\nsetup:\n  - echo said so\n")
    built = line.expect(0, "template", "build", str(recipe))
    assert "\nsaid so\n" in built.stdout
    assert "typed@1 is ready" in built.stdout.splitlines()[-1]
    again = line.read("template", "build", str(recipe))
    assert (again["version"], again["status"]) == (1, "ready")
    recipe.write_text("name: typed\nbase: python-3.9\nsetup:\n  - exit 3\n")
    failed = line.expect(1, "template", "build", str(recipe)).stderr
    assert "typed@2 has failed: setup command 1 failed with exit code 3" in failed
    listed = line.read("template", "list", "--name", "typed")["templates"]
    assert [(each["version"], each["status"]) for each in listed] == [(2, "failed"), (1, "ready")]
    assert "python-3.9 " in line.expect(0, "template", "list").stdout
    assert json.loads(line.expect(0, "template", "get", "typed@1").stdout)["status"] == "ready"
    assert "exit 3" in line.expect(0, "template", "log", "typed").stdout
    assert "was deleted" in line.expect(0, "template", "delete", "typed").stdout
    line.expect(1, "template", "get", "typed")


@pytest.mark.needs_python39
def test_files_of_a_recipe_are_found_where_it_is(line: Shell, tmp_path: Path) -> None:
    """Seen from its folder, byte for byte, programs as programs; one that cannot be read is named at once."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.bin").write_bytes(bytes(range(256)))
    (tmp_path / "greet").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "greet").chmod(0o755)
    recipe = tmp_path / "recipe.yaml"
    files = "files:\n  - {path: share/data, source: in/data.bin}\n  - {path: bin/greet, source: greet}\n"
    recipe.write_text(f"name: sourced\nbase: python-3.9\n{files}  - {{path: own, content: own}}\nready: greet\n")
    assert "sourced@1 is ready" in line.expect(0, "template", "build", str(recipe)).stdout
    code = "print(open('/opt/template/share/data', 'rb').read() == bytes(range(256)), open('/opt/template/own').read())"
    assert line.expect(0, "run", "--template", "sourced", "-c", code).stdout == "True own\n"
    line.expect(0, "template", "delete", "sourced")
    recipe.write_text("name: sourced\nbase: python-3.9\nfiles: [{path: a, source: missing}]\n")
    assert "missing cannot be read" in line.expect(2, "template", "build", str(recipe)).stderr
    with (tmp_path / "missing").open("wb") as large:
        large.truncate((8 << 20) + 1)
    assert "missing is larger than the 8 MiB" in line.expect(2, "template", "build", str(recipe)).stderr
    line.expect(1, "template", "get", "sourced")
