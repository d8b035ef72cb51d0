"""Images are fetched from registries: each part is what its digest says, and only addresses that may be reached are."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.core.built import BuildFailed
from sandgate.core.image import ImageReference
from sandgate.core.network import NetworkPolicy
from sandgate.sandbox.registry.fetching import Fetcher
from sandgate.sandbox.registry.images import RegistryImages
from sandgate.sandbox.root_unpacker import unpack
from tests.e2e.small_registry import HOST, TOKEN, Registry, serve_registry

CONFIG = {"config": {"Env": ["PATH=/usr/bin", "A=b"]}}
MOST = 10**6


def _layer(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """One with an image of two layers."""
    with serve_registry() as serving:
        serving.add("1.0", [_layer("usr/one", b"one"), _layer("usr/two", b"two")], CONFIG)
        yield serving


def _images(registry: Registry, special: str = HOST, deny: str = "") -> RegistryImages:
    return RegistryImages(Fetcher(NetworkPolicy(special, "", deny), frozenset({registry.authority})))


async def _fetch(registry: Registry, which: str, path: Path, most: int = MOST, **more: str) -> str:
    reference = ImageReference.parse(f"{registry.authority}/team/image{which}")
    found = await _images(registry, **more).find(reference, "owner")
    await found.fetch(path, most)
    return found.digest


async def test_an_image_becomes_an_archive(registry: Registry, tmp_path: Path) -> None:
    """By its tag, or by its digest; with a token, which is shown to nobody else's address."""
    archive, root = tmp_path / "archive.tar", tmp_path / "root"
    root.mkdir()
    digest = await _fetch(registry, ":1.0", archive)
    assert digest in registry.blobs
    with archive.open("rb") as file:
        said = unpack(file, root, MOST, 100)
    assert ((root / "usr/one").read_text(), (root / "usr/two").read_text(), said["env"]["A"]) == ("one", "two", "b")
    assert {token for path, token in registry.asked if path.startswith("/v2/")} == {"", f"Bearer {TOKEN}"}
    assert [path for path, _token in registry.asked if path.startswith("/token")] == [
        "/token?scope=repository%3Ateam%2Fimage%3Apull&service=registry"
    ]
    assert await _fetch(registry, f"@{registry.tags['1.0']}", archive) == digest
    assert await _fetch(registry, f"@{digest}", archive) == digest


async def test_a_token_is_for_the_registry_alone(registry: Registry, tmp_path: Path) -> None:
    """Where blobs lie elsewhere, that other place does not get it."""
    with serve_registry() as other:
        other.blobs = registry.blobs
        registry.elsewhere = f"http://{other.authority}/elsewhere"
        fetcher = Fetcher(NetworkPolicy(HOST), frozenset({registry.authority, other.authority}))
        reference = ImageReference.parse(f"{registry.authority}/team/image:1.0")
        found = await RegistryImages(fetcher).find(reference, "owner")
        await found.fetch(tmp_path / "archive.tar", MOST)
        assert {token for _path, token in other.asked} == {""}
        assert len(other.asked) == 3


@pytest.mark.parametrize("part", ["index", "manifest", "config", "layer"])
async def test_what_is_not_what_its_digest_says_is_refused(registry: Registry, tmp_path: Path, part: str) -> None:
    """Whichever part it is; one of the same length, and one that is longer."""
    digests = list(registry.blobs)
    lie = dict(zip(("config", "layer", "layer2", "manifest", "index"), digests, strict=True))[part]
    for content in (registry.blobs[lie][:-1] + b"~", registry.blobs[lie] + b" "):
        registry.lies = {lie: content}
        with pytest.raises(BuildFailed, match=f"is not {lie}"):
            await _fetch(registry, f"@{registry.tags['1.0']}", tmp_path / "archive.tar")


async def test_addresses_that_may_not_be_reached_are_not(registry: Registry, tmp_path: Path) -> None:
    """The registry's own, those that it sends on to, those that it names for tokens; without TLS none but it."""
    path = tmp_path / "archive.tar"
    with pytest.raises(BuildFailed, match="no address that environments may reach"):
        await _fetch(registry, ":1.0", path, special="")
    with pytest.raises(BuildFailed, match="denied by the administrator"):
        await _fetch(registry, ":1.0", path, deny=HOST)
    for place in (f"http://{HOST}:1/x", "https://169.254.169.254/latest", "file:///etc/passwd", "http://a@b/c"):
        registry.elsewhere = place
        with pytest.raises(BuildFailed, match=r"not asked|no address that"):
            await _fetch(registry, ":1.0", path)
    registry.realm = "https://10.0.0.1/token"
    with pytest.raises(BuildFailed, match="no address that"):
        await _fetch(registry, ":1.0", path)


async def test_it_is_bounded_and_what_is_missing_is_named(registry: Registry, tmp_path: Path) -> None:
    """An image that is too large is not fetched at all."""
    path = tmp_path / "archive.tar"
    with pytest.raises(BuildFailed, match="1000 is the most"):
        await _fetch(registry, ":1.0", path, 1000)
    assert not any("/blobs/" in asked for asked, _token in registry.asked)
    with pytest.raises(BuildFailed, match=r"answers 404 to team/image/manifests/2\.0"):
        await _fetch(registry, ":2.0", path)
    registry.tags["odd"] = registry.keep(b"[]")["digest"]
    registry.tags["no-image"] = registry.keep(b"{}")["digest"]
    registry.tags["other"] = registry.keep(b'{"manifests": [{"platform": {"os": "x"}}]}')["digest"]
    registry.tags["path"] = registry.keep(b'{"layers": [], "config": {"digest": "../../x", "size": 1}}')["digest"]
    for tag, problem in (("odd", "JSON"), ("no-image", "no image"), ("other", "no image for"), ("path", "sha256")):
        with pytest.raises(BuildFailed, match=problem):
            await _fetch(registry, f":{tag}", path)


@pytest.mark.parametrize(
    "text",
    [
        "image", "image:1", "team/image:1", "registry.example/image", "registry.example/Image:1", "registry.example/:1",
        "registry.example/a/../b:1", "registry.example/a@sha256:12", "http://registry.example/a:1",
        "registry.example:0/a:1",
        "registry.example:70000/a:1", "user@registry.example/a:1", "registry.example/a:1 ", "registry.example/a:1?x=y",
        "registry..example/a:1", "127.1/a:1", "registry.example/" + "a" * 500 + ":1",
    ],
)  # fmt: skip
def test_what_names_no_image(text: str) -> None:
    """There is no usual registry, and nothing of an address but the host comes through."""
    with pytest.raises(ValueError, match=r"is not|has no|has neither|does not|is no|is an"):
        ImageReference.parse(text)
