"""Registries over TLS: believed by the authorities of the system, and by those that the administrator names."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandgate.core.built import BuildFailed
from sandgate.core.errors import ConfigurationError
from sandgate.core.image import ImageReference
from sandgate.core.network import NetworkPolicy
from sandgate.sandbox.registry.fetching import Fetcher
from sandgate.sandbox.registry.images import RegistryImages
from tests.e2e.small_registry import HOST, TOKEN, Registry, serve_registry


@dataclass(frozen=True)
class Authority:
    """One that signs; its certificate is in a file."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    file: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))


def _authority(folder: Path, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), _name(name), key)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(_name(name), key, file)


def _context(folder: Path, authority: Authority, address: str = HOST) -> ssl.SSLContext:
    """Of a server whose certificate an authority has signed for the address, which is that of the registry."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    builder = _builder(_name("registry"), authority.name, key).add_extension(names, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "registry.pem"
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Nobody's but the test's."""
    return _authority(tmp_path, "authority")


@pytest.fixture
def registry(tmp_path: Path, authority: Authority) -> Iterator[Registry]:
    """One with an image, over TLS."""
    with serve_registry(_context(tmp_path, authority)) as serving:
        serving.add("1.0", [b"layer"], {})
        yield serving


async def _fetch(registry: Registry, authorities: Path | None, path: Path) -> int:
    images = RegistryImages(Fetcher(NetworkPolicy(HOST), authorities=authorities))
    found = await images.find(ImageReference.parse(f"{registry.authority}/team/image:1.0"), "owner")
    return await found.fetch(path, 10**6)


async def test_the_authority_that_is_named_is_believed(
    registry: Registry, authority: Authority, tmp_path: Path
) -> None:
    """For the registry, what it hands out tokens at, and where its blobs are; all of the image is fetched."""
    assert await _fetch(registry, authority.file, tmp_path / "archive.tar") > 0
    assert b"layer" in (tmp_path / "archive.tar").read_bytes()
    assert {token for path, token in registry.asked if path.startswith("/v2/")} == {"", f"Bearer {TOKEN}"}
    assert any(path.startswith("/elsewhere/") for path, _token in registry.asked)


async def test_nobody_else_is(registry: Registry, tmp_path: Path) -> None:
    """It is said what is missing and whose it is to mend; nothing was asked of that registry."""
    other = _authority(tmp_path, "other")
    for authorities in (None, other.file):
        with pytest.raises(BuildFailed, match=r"is not believed: .*SANDGATE_REGISTRY_CERTIFICATES"):
            await _fetch(registry, authorities, tmp_path / "archive.tar")
    assert registry.asked == []


async def test_an_authority_of_ones_own_needs_no_more_than_that_it_signs(
    registry: Registry, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Python asks for more of all certificates, as it does from 3.13 on."""
    make = ssl.create_default_context

    def make_strict() -> ssl.SSLContext:
        context = make()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", make_strict)
    assert await _fetch(registry, authority.file, tmp_path / "archive.tar") > 0


async def test_what_no_authority_mends_is_said_alone(authority: Authority, tmp_path: Path) -> None:
    """A certificate for another address is one, whoever has signed it."""
    with serve_registry(_context(tmp_path, authority, "192.0.2.1")) as registry:
        with pytest.raises(BuildFailed, match="is not believed: IP address mismatch") as failed:
            await _fetch(registry, authority.file, tmp_path / "archive.tar")
        assert "SANDGATE_REGISTRY_CERTIFICATES" not in str(failed.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_holds_none_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    """Rather than with the first build."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"SANDGATE_REGISTRY_CERTIFICATES: .*cannot be used"):
        Fetcher(NetworkPolicy(), authorities=file)
