"""What every runtime promises of whole folders that come and go as archives."""

import tarfile

import pytest

from sandgate.core.errors import ArchiveInvalid, FileConflict, FilesUnavailable
from sandgate.core.files import parse_entry
from sandgate.core.outlet import Outlet
from sandgate.sandbox.base import Sandbox
from tests.archive_files import FORMS, HOSTILE, LARGE, TREE, read_archive, tar
from tests.contract.runtime.conftest import Subject
from tests.runtime.file_client import ask, begin, list_folder, pack, read, unpack, write


async def _names(sandbox: Sandbox, path: str = ".") -> list[str]:
    return [entry["path"] for entry in (await list_folder(sandbox, path))[0] if entry["path"] not in ("tmp", "home")]


@pytest.mark.parametrize("form", FORMS)
async def test_a_tree_goes_up_and_comes_down(subject: Subject, form: str) -> None:
    """Names, contents, permissions and times; the standard library writes what is read, and reads what is written."""
    sandbox = await subject.create()
    laid = await unpack(sandbox, "new/tree", form, FORMS[form](*TREE.items()))
    assert (laid["files"], laid["bytes"]) == (4, sum(map(len, TREE.values())))
    assert await read(sandbox, "new/tree/in/deep/b.bin") == LARGE
    entry = parse_entry((await ask(sandbox, "stat", path="new/tree/a.txt"))["entry"])
    assert (entry.mode, entry.modified_at.timestamp()) == (0o640 if form == "zip" else 0o644, 1_600_000_000)
    packed = await pack(sandbox, "new/tree", form)
    assert read_archive(form, packed) == TREE
    assert await _names(sandbox) == ["new"]
    assert (await unpack(sandbox, "again", form, packed))["files"] == 4
    assert await pack(sandbox, "again", form) == await pack(sandbox, "new/tree", form)


async def test_links_stay_links(subject: Subject) -> None:
    """In each form; hard links in a tar become names of one file."""
    sandbox = await subject.create()
    link, hard = {"type": tarfile.SYMTYPE, "linkname": "../a"}, {"type": tarfile.LNKTYPE, "linkname": "a"}
    await unpack(sandbox, "one", "tar", tar(("a", b"a"), ("in/l", link), ("h", hard)))
    inodes = {parse_entry((await ask(sandbox, "stat", path=f"one/{name}"))["entry"]).tag for name in ("a", "h")}
    assert len(inodes) == 1
    for form in FORMS:
        await unpack(sandbox, f"of-{form}", form, await pack(sandbox, "one", form))
        entry = parse_entry((await ask(sandbox, "stat", path=f"of-{form}/in/l"))["entry"])
        assert (entry.kind, entry.target) == ("link", b"../a")


async def test_what_is_there_is_joined(subject: Subject) -> None:
    """Other files stay; those of the same name are replaced, or nothing is done at all."""
    sandbox = await subject.create()
    await write(sandbox, "in/kept", b"kept")
    await write(sandbox, "in/deep/old", b"old")
    archive = tar(("deep/old", b"new"), ("deep/more", b"more"), ("other/x", b"x"))
    with pytest.raises(FileConflict):
        await unpack(sandbox, "in", "tar", archive, overwrite=False)
    assert await _names(sandbox, "in") == ["in/deep", "in/kept"]
    assert await _names(sandbox, "in/deep") == ["in/deep/old"]
    await unpack(sandbox, "in", "tar", archive)
    assert [await read(sandbox, f"in/{name}") for name in ("kept", "deep/old", "deep/more", "other/x")] == [
        b"kept", b"new", b"more", b"x",
    ]  # fmt: skip
    for name, content in (("kept/x", b"x"), ("deep", b"no folder")):
        with pytest.raises(FileConflict):
            await unpack(sandbox, "in", "tar", tar(("first", b"1"), (name, content)))
    assert await _names(sandbox, "in") == ["in/deep", "in/kept", "in/other"]


async def test_hostile_archives_stay_inside(subject: Subject) -> None:
    """One of each kind on each runtime."""
    sandbox = await subject.create()
    for how in ("upwards", "through a link", "hard link out", "zip link out", "zip overlapping"):
        form, archive, why = HOSTILE[how]
        with pytest.raises(ArchiveInvalid, match=why):
            await unpack(sandbox, "in", form, archive)
    outside = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    await unpack(sandbox, "in", "tar", tar(("l", outside)), outside_links=True)
    assert parse_entry((await ask(sandbox, "stat", path="in/l"))["entry"]).target == b"/etc/passwd"


async def test_an_archive_that_breaks_off_leaves_nothing(subject: Subject) -> None:
    """Once what was killed has been cleared up."""
    sandbox = await subject.create()
    outlet = Outlet()
    named = {"entries": 99, "bytes": 1 << 30, "overwrite": True, "outside_links": False}
    channel = begin(sandbox, "unpack", outlet, path="in", form="tar", staging=".unpack-test", **named)
    for piece in (tar(("a", LARGE))[:100_000], b"x"):
        await outlet.put(len(piece).to_bytes(4, "big") + piece)
    channel.close()
    with pytest.raises(FilesUnavailable):
        await channel.answer()
    await ask(sandbox, "discard", path="in", staging=".unpack-test")
    assert await _names(sandbox) == []
