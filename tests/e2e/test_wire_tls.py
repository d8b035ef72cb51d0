"""TLS by two files, and what is said over it."""

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandgate.config.settings import Settings
from sandgate.core.errors import ConfigurationError
from sandgate.http import server as server_module
from sandgate.http.tls import Tls
from tests.e2e.wire_app import BODY_LIMIT, make_app
from tests.e2e.wire_server import PATIENCE_S, Wire, WireServer, serving

NAME = "sandgate.test"


def write_certificate(folder: Path, serial: int, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    sealed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
    return paths


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The first certificate."""
    return write_certificate(tmp_path, 1)


@pytest.fixture
def server(files: tuple[Path, Path]) -> Iterator[WireServer]:
    """A server that speaks TLS."""
    with serving(make_app, tls_certificate=files[0], tls_key=files[1]) as made:
        yield made


def _connect(server: WireServer, trusted: Path, **changes: ssl.TLSVersion) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(trusted))
    for name, value in changes.items():
        setattr(context, name, value)
    plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
    try:
        return context.wrap_socket(plain, server_hostname=NAME)
    except BaseException:
        plain.close()
        raise


def test_requests_are_answered_over_tls_and_told_to_stay_there(server: WireServer, files: tuple[Path, Path]) -> None:
    """With the headers of a careful service; a body that is too large still reads its answer."""
    with Wire(_connect(server, files[0])) as wire:
        wire.ask("POST", "/x", b"y" * 1000)
        answer = wire.answer()
        assert answer.status == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        wire.ask("POST", "/x", b"y" * (BODY_LIMIT + 1))
        assert wire.answer().status == 413


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_versions_are_refused(server: WireServer, files: tuple[Path, Path]) -> None:
    """1.2 and 1.3 are spoken, nothing before."""
    with _connect(server, files[0], maximum_version=ssl.TLSVersion.TLSv1_2) as old:
        assert old.version() == "TLSv1.2"
        assert "GCM" in str(old.cipher()) or "CHACHA20" in str(old.cipher())
    with _connect(server, files[0]) as new:
        assert new.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        _connect(server, files[0], minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)


def test_a_slow_head_is_answered_over_tls(server: WireServer, files: tuple[Path, Path]) -> None:
    """As without; and who speaks no TLS is dropped."""
    with (
        serving(make_app, tls_certificate=files[0], tls_key=files[1], head_timeout_s=1.5) as strict,
        Wire(_connect(strict, files[0])) as wire,
    ):
        wire.send("GET / HT")
        assert wire.answer().status == 408
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(1000)


def test_a_new_certificate_is_taken_while_connections_go_on(
    server: WireServer, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Half a change is not taken: what was there stays until both files belong together."""
    (tmp_path / "new").mkdir()
    new = write_certificate(tmp_path / "new", 2)
    trusted = tmp_path / "old.pem"
    trusted.write_bytes(files[0].read_bytes())
    with Wire(_connect(server, files[0])) as before:
        before.ask("GET", "/")
        assert before.answer().status == 200
        files[1].write_bytes(new[1].read_bytes())
        _until_looked()
        with Wire(_connect(server, trusted)) as same:
            same.ask("GET", "/")
            assert same.answer().status == 200
        files[0].write_bytes(new[0].read_bytes())
        _until_looked()
        with Wire(_connect(server, files[0])) as after:
            after.ask("GET", "/")
            assert after.answer().status == 200
        before.ask("GET", "/")
        assert before.answer().status == 200


def _until_looked() -> None:
    """The server looks once a tick, in its own loop: one look that has begun after this was called is over."""
    looked, follow = threading.Event(), Tls.follow

    def follow_and_tell(tls: Tls) -> None:
        follow(tls)
        looked.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tls, "follow", follow_and_tell)
        assert looked.wait(PATIENCE_S)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_TICK_S", 0.05)


def test_files_that_are_of_no_use_stop_the_start(tmp_path: Path) -> None:
    """With the reason: not there, not PEM, not together, behind a password."""
    certificate, key = write_certificate(tmp_path, 1)
    (tmp_path / "other").mkdir()
    _, other = write_certificate(tmp_path / "other", 2)
    (tmp_path / "sealed").mkdir()
    sealed = write_certificate(tmp_path / "sealed", 3, b"secret")
    text = tmp_path / "text"
    text.write_text("no key")
    for paths, told in (
        ((certificate, tmp_path / "none"), "No such file"),
        ((text, key), "TLS"),
        ((certificate, other), "KEY_VALUES_MISMATCH"),
        (sealed, "password"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            Tls(*paths)


def test_one_file_without_the_other_is_no_setting(tmp_path: Path) -> None:
    """It would be a mistake, and TLS that is not there is worse than no server."""
    with pytest.raises(ValueError, match="go together"):
        Settings(tls_key=tmp_path)


def test_those_who_say_nothing_take_no_more_than_their_share(files: tuple[Path, Path]) -> None:
    """Of one address as many may be in their handshake as it may have connections; when they go, others have room."""
    with serving(make_app, tls_certificate=files[0], tls_key=files[1], max_connections_per_address=5) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) for _ in range(20)]
        # Closed by the server, without a word, in the order in which they came.
        assert [each.recv(1) for each in silent[5:]] == [b""] * 15
        for each in silent[:5]:
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(1)
        for each in silent:
            each.close()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                _connect(server, files[0]).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)  # waits: the server learns of the ends in its own time
            else:
                break
