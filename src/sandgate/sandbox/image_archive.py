"""What is in an image archive, as ``docker save`` and tools of the OCI write it: its layers, and its configuration.

Source: the OCI image specification (``image-layout.md``, ``manifest.md``, ``config.md``), and docker's image
specification 1.2 (``manifest.json``).
"""

import hashlib
import io
import json
import platform
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, cast

from sandgate.sandbox.root_tree import Refused

# What archives of images have at their top, and root file systems have not.
_OWN = re.compile(
    r"oci-layout|index\.json|manifest\.json|repositories|blobs(/[a-z0-9]+(/[0-9a-f]{32,128})?)?"
    r"|[0-9a-f]{64}(\.json|\.tar|/(layer\.tar|json|VERSION)?)?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_MEMBERS = 4096
_MOST_LAYERS = 256
_LONGEST_TEXT_BYTES = 4 * 1024**2
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_PIECE_BYTES = 1 << 20


class ImageArchive:
    """One image of a tar that can be read from anywhere. Every method raises ``Refused``, ``tarfile.TarError``."""

    def __init__(self, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> None:
        self._tar = tar
        self._members = members

    @classmethod
    def recognize(cls, tar: tarfile.TarFile) -> "ImageArchive | None":
        """The archive, or None where a tar is a root file system itself."""
        members: dict[str, tarfile.TarInfo] = {}
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]
            name = member.name.removeprefix("./").rstrip("/")
            if name in ("", "."):
                continue
            if not _OWN.fullmatch(name):
                return None
            members[name] = member
            if len(members) > _MOST_MEMBERS:
                raise Refused(f"it has more than {_MOST_MEMBERS} parts")
        return cls(tar, members) if {"manifest.json", "index.json"} & set(members) else None

    def read(self) -> tuple[Mapping[str, Any], Iterator[IO[bytes]]]:
        """The configuration, and the layers from the lowest up; each is read before the next is asked for."""
        if "index.json" in self._members:
            config, layers = self._of_layout()
        else:
            config, layers = self._of_docker()
        if len(layers) > _MOST_LAYERS:
            raise Refused(f"it has more than {_MOST_LAYERS} layers")
        return config, self._open_layers(layers)

    def _of_layout(self) -> tuple[Mapping[str, Any], Sequence[tuple[str, str]]]:
        document = self._parse("index.json", "")
        # An index can name another one, which names the manifests of each kind of machine.
        for _level in range(4):
            if not isinstance(document.get("manifests"), list):
                break
            name, digest = self._blob(choose_manifest(document["manifests"]))
            document = self._parse(name, digest)
        layers = document.get("layers")
        if not isinstance(layers, list):
            raise Refused("it names no image")
        return self._parse(*self._blob(document.get("config"))), [self._blob(each) for each in layers]

    def _of_docker(self) -> tuple[Mapping[str, Any], Sequence[tuple[str, str]]]:
        images = self._parse("manifest.json", "", kind=list)
        if len(images) != 1 or not isinstance(images[0], dict):
            raise Refused(f"it has {len(images)} images, not one")
        layers = images[0].get("Layers")
        if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
            raise Refused("it names no layers")
        return self._parse(str(images[0].get("Config")), ""), [(name, "") for name in layers]

    @staticmethod
    def _blob(descriptor: Any) -> tuple[str, str]:
        """The name of what a descriptor stands for, and its digest."""
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise Refused("it names a part of itself by something else than its sha256")
        return f"blobs/sha256/{digest.removeprefix('sha256:')}", digest

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        if member is None or not (member.isreg() or member.issym() or member.islnk()):
            raise Refused(f"{name[:200]!a} is missing in it")
        if not member.isreg():
            # docker links layers that are the same.
            folder = name.rpartition("/")[0]
            target = member.linkname if member.islnk() else f"{folder}/{member.linkname}"
            member = self._members.get(_plain(target))
        content = self._tar.extractfile(member) if member is not None and member.isreg() else None
        if content is None:
            raise Refused(f"{name[:200]!a} is missing in it")
        return content

    def _parse(self, name: str, digest: str, kind: type = dict) -> Any:
        text = self._open(name).read(_LONGEST_TEXT_BYTES + 1)
        if digest and f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
            raise Refused(f"{name[:200]!a} is not what its name says")
        try:
            value = json.loads(text) if len(text) <= _LONGEST_TEXT_BYTES else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise Refused(f"{name[:200]!a} is not JSON of an image")
        return value

    def _open_layers(self, layers: Sequence[tuple[str, str]]) -> Iterator[IO[bytes]]:
        for name, digest in layers:
            content = Checked(self._open(name))
            yield cast("IO[bytes]", content)
            if digest and content.digest() != digest:
                raise Refused(f"{name[:200]!a} is not what its name says")


class Checked(io.RawIOBase):
    """Passes on what is read, and knows its digest in the end."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__()
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """See ``RawIOBase``."""
        piece = self._source.read(size)
        self._hash.update(piece)
        return piece

    def digest(self) -> str:
        """Of all of it: what nobody has read yet is read now."""
        while self.read(_PIECE_BYTES):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def choose_manifest(manifests: Sequence[Any]) -> Mapping[str, Any]:
    """The one for this machine; where none says what it is for, the only one. Raises ``Refused``."""
    own = {"os": "linux", "architecture": _MACHINES.get(platform.machine(), platform.machine())}
    found = [each for each in manifests if isinstance(each, dict)]
    fitting = [each for each in found if _fits(each.get("platform"), own)]
    if not fitting and len(found) == 1 and not found[0].get("platform"):
        fitting = found
    if not fitting:
        raise Refused(f"it has no image for {own['os']} on {own['architecture']}")
    return fitting[0]


def _fits(stated: Any, own: Mapping[str, str]) -> bool:
    return isinstance(stated, dict) and all(stated.get(name) == value for name, value in own.items())


def _plain(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
