"""What every runtime promises of the files in its sandboxes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from sandgate.core.errors import FileConflict, FileMissing, FilesUnavailable, PathInvalid, PatternInvalid
from sandgate.core.file_changes import parse_change
from sandgate.core.files import parse_entry, parse_found
from sandgate.core.outlet import Outlet
from sandgate.sandbox.base import Sandbox
from tests.contract.runtime.conftest import Subject
from tests.runtime.file_client import ask, begin, list_folder, read, write

CONTENT = bytes(range(256)) * 3000


async def test_what_was_written_is_there(subject: Subject) -> None:
    """Whole, in parts, listed, and gone when it is removed."""
    sandbox = await subject.create()
    written = parse_entry((await write(sandbox, "in/a.bin", CONTENT)).get("entry"))
    assert (written.kind, written.size_bytes, written.mode) == ("file", len(CONTENT), 0o644)
    assert await read(sandbox, "in/a.bin") == CONTENT
    assert await read(sandbox, "in/a.bin", 700_000) == CONTENT[700_000:]
    listed, _last = await list_folder(sandbox, "in")
    assert [parse_entry(entry).path for entry in listed] == [b"in/a.bin"]
    assert (await ask(sandbox, "delete", path="in", recursive=True))["deleted"] == 2
    with pytest.raises(FileMissing):
        await ask(sandbox, "stat", path="in/a.bin")


async def test_a_write_is_whole_or_nothing(subject: Subject) -> None:
    """One that is given up changes nothing and leaves nothing; one that may not replace does not."""
    sandbox = await subject.create()
    await write(sandbox, "a", b"before")
    outlet = Outlet()
    channel = begin(sandbox, "write", outlet, path="a", overwrite=True, mode=None)
    for _ in range(3):
        await outlet.put((1000).to_bytes(4, "big") + bytes(1000))
    channel.close()
    with pytest.raises(FilesUnavailable):
        await channel.answer()
    with pytest.raises(FileConflict):
        await write(sandbox, "a", b"other", overwrite=False)
    assert await read(sandbox, "a") == b"before"
    names = [entry["path"] for entry in (await list_folder(sandbox, "."))[0]]
    assert [name for name in names if not name.startswith(".")] == ["a"]


async def test_trees_are_moved_and_copied(subject: Subject) -> None:
    """With everything in them; nothing is replaced unasked."""
    sandbox = await subject.create()
    await write(sandbox, "from/deep/a", b"a")
    await write(sandbox, "there", b"t")
    await ask(sandbox, "copy", source="from", target="to/copy", overwrite=False)
    await ask(sandbox, "move", source="from", target="moved", overwrite=False)
    assert [await read(sandbox, path) for path in ("to/copy/deep/a", "moved/deep/a")] == [b"a", b"a"]
    with pytest.raises(FileConflict):
        await ask(sandbox, "move", source="moved", target="there", overwrite=False)
    with pytest.raises(FileMissing):
        await ask(sandbox, "stat", path="from")


async def test_a_file_is_not_copied_onto_itself(subject: Subject) -> None:
    """Nothing would be left of it; the same way written otherwise is no other file."""
    sandbox = await subject.create()
    await write(sandbox, "in/a", b"all of it")
    for target in ("in/a", "./in/../in/a"):
        with pytest.raises(PathInvalid):
            await ask(sandbox, "copy", source="in/a", target=target, overwrite=True)
    assert await read(sandbox, "in/a") == b"all of it"
    await write(sandbox, "b", b"longer than that")
    await ask(sandbox, "copy", source="in/a", target="b", overwrite=True)
    assert await read(sandbox, "b") == b"all of it"


async def test_a_tree_that_cannot_go_is_left_whole(subject: Subject) -> None:
    """What is refused is refused before anything of it was removed."""
    sandbox = await subject.create()
    await write(sandbox, "in/a", b"a")
    for path in (".", "in/.", "in/.."):
        with pytest.raises(PathInvalid):
            await ask(sandbox, "delete", path=path, recursive=True)
    assert await read(sandbox, "in/a") == b"a"
    assert (await ask(sandbox, "delete", path="in/", recursive=True))["deleted"] == 2


async def test_folders_are_listed_in_parts(subject: Subject) -> None:
    """By name, on from where the last part ended."""
    sandbox = await subject.create()
    for number in range(5):
        await ask(sandbox, "mkdir", path=f"many/{number}")
    first, after = await list_folder(sandbox, "many", limit=3)
    rest, end = await list_folder(sandbox, "many", after=after or "", limit=3)
    assert [[entry["path"][-1] for entry in part] for part in (first, rest)] == [["0", "1", "2"], ["3", "4"]]
    assert (after, end) == ("2", None)


async def _search(sandbox: Sandbox, **named: Any) -> tuple[list[Any], Mapping[str, Any]]:
    asked = {"path": ".", "name": None, "content": None, "limit": 10, "after": ["", 0], "timeout_s": 30.0, **named}
    channel = begin(sandbox, "search", options={"regex": True, "ignore_case": False}, **asked)
    try:
        await channel.answer()
        found = [each async for each in channel.found(10)]
        return found, await channel.answer()
    finally:
        channel.close()


async def test_files_are_searched(subject: Subject) -> None:
    """By name and by content; a pattern that takes for ever is ended in its time."""
    sandbox = await subject.create()
    await write(sandbox, "in/a.py", b"one\ntwo\n")
    await write(sandbox, "in/z.txt", b"a" * 5000 + b"!")
    found, _ended = await _search(sandbox, name="*.py", content="^t")
    assert [(each["path"], each["line_number"]) for each in found] == [("in/a.py", 2)]
    found, ended = await _search(sandbox, content="^one|(a+)+$", timeout_s=3.0)
    assert ([each["line_number"] for each in found], ended["reason"], ended["path"]) == ([1], "time", "in/z.txt")
    with pytest.raises(PatternInvalid):
        await _search(sandbox, content="(")


async def test_what_changes_is_told(subject: Subject) -> None:
    """Created, modified, moved and deleted; whoever stops listening leaves nothing that looks."""
    sandbox = await subject.create()
    await write(sandbox, "in/a", b"a")
    channel = begin(sandbox, "watch", Outlet(), path="in", recursive=True, most_entries=10, most_changes=3)
    assert await channel.answer() == {}

    async def told() -> list[tuple[str, ...]]:
        changes = map(parse_change, parse_found(await channel.record()))
        return [(change.kind, change.path.decode(), (change.target or b"").decode()) for change in changes]

    await write(sandbox, "in/b", b"b")
    assert await told() == [("created", "b", "")]
    await ask(sandbox, "move", source="in/b", target="in/c", overwrite=False)
    assert await told() == [("moved", "b", "c")]
    await write(sandbox, "in/a", b"longer")
    assert await told() == [("modified", "a", "")]
    await ask(sandbox, "delete", path="in", recursive=True)
    assert sorted(await told())[:1] in ([("deleted", "a", "")], [("deleted", "c", "")])
    channel.close()
    with suppress(FilesUnavailable):
        while await channel.record():
            continue
    assert (await ask(sandbox, "stat", path="."))["entry"]["kind"] == "folder"
