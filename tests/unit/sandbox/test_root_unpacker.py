"""A root file system that a user has brought is laid out: as it says, and never beside its folder."""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandgate.sandbox.root_tree import Refused
from sandgate.sandbox.root_unpacker import unpack

MOST_BYTES, MOST_FILES = 10_000, 60
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
Entry = tuple[tarfile.TarInfo, bytes]


def _entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> Entry:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.size, member.mtime = kind, link, mode, len(content), 1_000_000_000
    return member, content


def _folder(name: str) -> Entry:
    return _entry(name, kind=tarfile.DIRTYPE, mode=0o700)


def _link(name: str, target: str) -> Entry:
    return _entry(name, kind=tarfile.SYMTYPE, link=target)


def _hard(name: str, target: str) -> Entry:
    return _entry(name, kind=tarfile.LNKTYPE, link=target)


def _tar(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _unpack(folder: Path, archive: bytes, *, most_files: int = MOST_FILES) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return unpack(io.BytesIO(archive), folder, MOST_BYTES, most_files, ["python3", "bash"])


def _tree(folder: Path) -> dict[str, str]:
    """Every file but those of the service's own, by path: its content, or where a link leads."""
    own = ("etc/hosts", "etc/resolv.conf", "etc/passwd", "etc/group")
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    found = {str(path.relative_to(folder)): path for path in paths}
    return {
        name: f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text()
        for name, path in found.items()
        if name not in own
    }


def test_a_root_is_laid_out_with_links_and_without_devices_owners_and_powers(tmp_path: Path) -> None:
    """Files are found through links as they would be with the folder as root."""
    archive = _tar(
        _folder("./"), _folder("usr"), _folder("usr/bin"), _link("bin", "usr/bin"), _link("sbin", "/usr/bin"),
        _entry("usr/bin/python3.11", b"one", mode=0o4755), _link("sbin/python3", "python3.11"),
        _hard("bin/python", "usr/bin/python3.11"), _entry("deep/in/there", b"two"),
        _entry("dev/null", kind=tarfile.CHRTYPE), _entry("run/pipe", kind=tarfile.FIFOTYPE),
    )  # fmt: skip
    said = _unpack(tmp_path, archive)
    assert _tree(tmp_path) == {
        "bin": "-> usr/bin", "sbin": "-> /usr/bin", "usr/bin/python3.11": "one", "usr/bin/python3": "-> python3.11",
        "usr/bin/python": "one", "deep/in/there": "two",
    }  # fmt: skip
    assert said["programs"] == {"python3": "/usr/sbin/python3"} or said["programs"] == {"python3": "/usr/bin/python3"}
    assert said["env"]["PATH"].startswith("/usr/local/sbin:")
    assert os.stat(tmp_path / "usr/bin/python3.11").st_mode & 0o7777 == 0o755
    assert os.stat(tmp_path / "usr").st_mode & 0o7777 == 0o755
    assert os.stat(tmp_path / "usr/bin/python").st_nlink == 2


def test_what_comes_later_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    """A file of a link, a link of a folder, and what is written through it after that."""
    archive = _tar(
        _entry("a", b"old"), _entry("a", b"new"), _link("b", "a"), _entry("b", b"own"), _entry("c/f", b"f"),
        _folder("d"), _link("c", "d"), _entry("c/g", b"g"),
    )  # fmt: skip
    _unpack(tmp_path, archive)
    files = _tree(tmp_path)
    assert {name: files[name] for name in ("c", "d/g")} == {"c": "-> d", "d/g": "g"}
    assert "d/f" not in files
    # What lies in the root itself is elsewhere, with a link to it.
    assert (files["a"], files["usr/lib/sandgate-top/a"]) == ("-> /usr/lib/sandgate-top/a", "new")
    assert files["usr/lib/sandgate-top/b"] == "own"


@pytest.mark.parametrize(
    "entries",
    [
        [_entry("../out", b"x")],
        [_entry("a/../../out", b"x")],
        [_hard("a", "../out")],
        [_hard("a", "/etc/shadow")],
        [_folder("d"), _hard("a", "d")],
        [_entry("a", b"x"), _entry("a/b", b"x")],
        [_link("a", "a"), _entry("a/b", b"x")],
        [_link("a", "b/a"), _link("b", "a/b"), _entry("a/b", b"x")],
        [_entry("n" * 300, b"x")],
        [_folder("d/" * 70)],
        [_entry("big", b"x" * (MOST_BYTES + 1))],
        [_entry("same", b"x" * (MOST_BYTES // 4)) for _number in range(5)],
        [_entry(f"f{number}") for number in range(MOST_FILES + 1)],
    ],
    ids=lambda entries: "+".join(member.name[:12] for member, _content in entries[:3]),
)
def test_what_cannot_be_is_refused(tmp_path: Path, entries: Sequence[Entry]) -> None:
    """And nothing lies beside the folder."""
    with pytest.raises((Refused, OSError)):
        _unpack(tmp_path / "root", _tar(*entries))
    assert os.listdir(tmp_path) == ["root"]


@pytest.mark.parametrize("target", ["/", "..", "../..", "/../..", "../../../.."])
def test_links_lead_nowhere_but_into_the_root(tmp_path: Path, target: str) -> None:
    """What is written through a link that leads up, or to the host's root, is written in the root of the template."""
    root = tmp_path / "root"
    _unpack(
        root, _tar(_link("up", target), _entry("up/sandgate-out/file", b"x"), _hard("up/other", "up/sandgate-out/file"))
    )
    assert (root / "sandgate-out/file").read_text() == "x"
    assert os.listdir(tmp_path) == ["root"]
    assert not Path("/sandgate-out").exists()


def test_accounts_hosts_and_the_interpreter_are_written_and_read_inside(tmp_path: Path) -> None:
    """Through links of the archive's, too, that would lead to the host's files."""
    root, outside = tmp_path / "root", tmp_path / "passwd"
    outside.write_text("outside")
    archive = _tar(_link("etc/passwd", str(outside)), _link("bin/python3", "/bin/sh"), _link("etc/hosts", str(outside)))
    said = _unpack(root, archive)
    assert said["programs"] == {}
    assert outside.read_text() == "outside"
    assert "user:x:1000:1000" in (root / "etc/passwd").read_text()
    assert (root / "etc/hosts").read_text().startswith("127.0.0.1")
    second = tmp_path / "second"
    _unpack(second, _tar(_entry("etc/passwd", b"root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh")))
    assert (second / "etc/passwd").read_text() == "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh"


@pytest.mark.parametrize("above", ["", "a/", "a/b/"])
@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_nothing_outside_is_taken_away(tmp_path: Path, above: str, name: str) -> None:
    """What is left of a whiteout's name is a name in its folder, or it is refused."""
    beside = tmp_path / "beside"
    beside.write_text("somebody else's")
    with pytest.raises(Refused, match="takes away"):
        _unpack(tmp_path / "root", _tar(_entry("a/b/kept", b"1"), _entry(f"{above}{name}")))
    assert beside.read_text() == "somebody else's"
    assert (tmp_path / "root/a/b/kept").exists()


LOWER = _tar(
    _entry("usr/bin/python3", b"python", mode=0o755), _entry("a/kept", b"1"), _entry("a/gone", b"2"),
    _entry("b/gone", b"3"), _entry("b/below/gone", b"4"), _folder("c"), _link("way", "c"),
)  # fmt: skip
UPPER = _tar(
    _entry("a/.wh.gone"), _entry("b/new", b"5"), _entry("b/.wh..wh..opq"), _entry("way/through", b"6"),
    _entry("a/.wh.never"), _entry("way/.wh..wh..opq"),
)  # fmt: skip
CONFIG = {"config": {"Env": ["PATH=/usr/bin", "A=b=c", "HOME=/root", "no variable"], "WorkingDir": "//./c/"}}


def _docker(layers: Sequence[bytes], config: Any = CONFIG) -> bytes:
    names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    manifest = [{"Config": "config.json", "RepoTags": ["one:latest"], "Layers": names}]
    name = hashlib.sha256(json.dumps(config).encode()).hexdigest() + ".json"
    manifest[0]["Config"] = name
    return _tar(
        *(_entry(name, layer) for name, layer in zip(names, layers, strict=True)),
        _entry(name, json.dumps(config).encode()), _entry("manifest.json", json.dumps(manifest).encode()),
    )  # fmt: skip


def _oci(layers: Sequence[bytes], *, broken: str = "") -> bytes:
    blobs: dict[str, bytes] = {}

    def keep(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    described = [keep(layer) for layer in layers]
    config = keep(json.dumps(CONFIG).encode())
    manifest = keep(json.dumps({"config": config, "layers": described}).encode())
    other = {"digest": f"sha256:{'0' * 64}", "platform": {"os": "linux", "architecture": "other"}}
    own = {**manifest, "platform": {"os": "linux", "architecture": MACHINE}}
    inner = keep(json.dumps({"manifests": [other, own]}).encode())
    index = {"manifests": [inner]}
    damaged = {"layer": described[0], "config": config, "manifest": manifest}.get(broken, {"digest": ""})["digest"]
    files = [
        _entry(f"blobs/sha256/{digest}", content + (b" " if damaged.endswith(digest) else b""))
        for digest, content in blobs.items()
    ]
    return _tar(_folder("blobs"), _folder("blobs/sha256"), *files, _entry("index.json", json.dumps(index).encode()))


@pytest.mark.parametrize("make", [_docker, _oci])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_image_is_its_layers_with_what_they_take_away(tmp_path: Path, make: Any, pack: Any) -> None:
    """Whiteouts take away what earlier layers have brought and nothing of their own."""
    said = unpack(io.BytesIO(make([pack(LOWER), pack(UPPER)])), tmp_path, 10 * MOST_BYTES, MOST_FILES, ["python3"])
    assert _tree(tmp_path) == {
        "usr/bin/python3": "python", "a/kept": "1", "b/new": "5", "c/through": "6", "way": "-> c",
    }  # fmt: skip
    assert (said["env"], said["folder"]) == ({"PATH": "/usr/bin", "A": "b=c"}, "/c")
    assert said["programs"] == {"python3": "/usr/bin/python3"}
    # With the folders, and what is written of accounts and hosts.
    assert said["size_bytes"] == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("path", "folder", "said"),
    [
        ("/usr//bin/:/x", "/c//./", {"programs": {"python3": "/usr/bin/python3"}, "folder": "/c"}),
        ("/usr/../usr/bin", "/" + "d" * 256, {"programs": {}, "folder": ""}),
        ("/a" * 40 + ":/usr/bin", "/a" * 40, {"programs": {"python3": "/usr/bin/python3"}, "folder": ""}),
    ],
)
def test_paths_of_an_image_are_plain_ones(tmp_path: Path, path: str, folder: str, said: dict[str, Any]) -> None:
    """What the launcher would take for none is left out, or said in another way."""
    config = {"config": {"Env": [f"PATH={path}"], "WorkingDir": folder}}
    found = unpack(io.BytesIO(_docker([LOWER], config)), tmp_path, 10 * MOST_BYTES, MOST_FILES, ["python3"])
    assert {name: found[name] for name in said} == said


@pytest.mark.parametrize("broken", ["layer", "config", "manifest"])
def test_parts_of_an_image_are_what_their_names_say(tmp_path: Path, broken: str) -> None:
    """Each has the digest that it is named by."""
    with pytest.raises(Refused, match="is not what its name says"):
        unpack(io.BytesIO(_oci([LOWER], broken=broken)), tmp_path, 10 * MOST_BYTES, MOST_FILES)


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (_tar(_entry("manifest.json", b"[]")), "not one"),
        (_tar(_entry("manifest.json", b"{")), "not JSON"),
        (_tar(_entry("index.json", b"[[" * 100_000)), "not JSON"),
        (_tar(_entry("manifest.json", b'[{"Config": "c", "Layers": ["../../etc/passwd"]}]')), "missing"),
        (_tar(_entry("index.json", b'{"manifests": [{"digest": "sha256:../../x"}]}')), "sha256"),
        (_tar(_entry("index.json", b'{"manifests": []}')), "no image for linux"),
        (_docker([b"\x28\xb5\x2f\xfd" + b"z" * 600]), "compressed"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, archive: bytes, problem: str) -> None:
    """With what is wrong."""
    with pytest.raises(Refused, match=problem):
        unpack(io.BytesIO(archive), tmp_path, 10 * MOST_BYTES, MOST_FILES)


class _Pipe(io.BytesIO):
    """What cannot be read twice."""

    def seekable(self) -> bool:
        """It is none."""
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        """It cannot."""
        raise OSError("it is a pipe")


def test_a_root_that_is_known_to_be_one_is_no_image(tmp_path: Path) -> None:
    """It comes in a pipe, its programs are where it is said that they are, and no file makes an image of it."""
    archive = _tar(
        _entry("manifest.json", b'[{"Config": "c", "Layers": []}]'), _entry("own/bin/python3", b"#!", mode=0o755),
        _entry("usr/bin/bash", b"#!", mode=0o755), _entry("usr/bin/sudo", b"#!", mode=0o4755),
        _entry("dev/sda", kind=tarfile.BLKTYPE),
    )  # fmt: skip
    said = unpack(_Pipe(archive), tmp_path, MOST_BYTES, MOST_FILES, ["python3", "bash"], "/own/bin:/bin")
    assert (said["programs"], said["env"]) == ({"python3": "/own/bin/python3"}, {"PATH": "/own/bin:/bin"})
    assert os.readlink(tmp_path / "manifest.json") == "/usr/lib/sandgate-top/manifest.json"
    assert (tmp_path / "usr/bin/sudo").stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "dev/sda").exists()
