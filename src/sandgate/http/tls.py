"""TLS by two files, which are read again when they change."""

import os
import ssl
from collections.abc import Hashable
from pathlib import Path

from sandgate.config.settings import Settings
from sandgate.core.errors import ConfigurationError
from sandgate.telemetry.log import get_logger

_log = get_logger(__name__)


class Tls:
    """A context for listening, whose certificate follows its files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ``ConfigurationError`` when the files cannot be read, or do not belong together."""
        self._certificate = certificate
        self._key = key
        self._seen = self._look()
        self.context = self._load()

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """From the settings; None where they name no certificate."""
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key)

    def follow(self) -> None:
        """Take the files over if they have changed; what is there now stays while they do not belong together."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            # Tried first, since a context whose loading fails half way would be left with a key of another certificate.
            self._load()
            self._fill(self.context)
        except ConfigurationError as error:
            _log.error("the new certificate was not taken", reason=error.message)
        else:
            _log.info("certificate read again", file=str(self._certificate))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_alpn_protocols(["http/1.1"])
        self._fill(context)
        return context

    def _fill(self, context: ssl.SSLContext) -> None:
        """With what is in the files now, which may be other files than a moment ago."""
        try:
            context.load_cert_chain(self._certificate, self._key, password=_refuse_password)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self._certificate} and {self._key} cannot be used for TLS: {_reason(error)}. Both have to be "
                "readable for the user of the gateway, in PEM, and belong together."
            ) from None

    def _look(self) -> Hashable:
        return tuple(map(_state_of, (self._certificate, self._key)))


def _state_of(path: Path) -> Hashable:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _refuse_password() -> str:
    """Otherwise OpenSSL would ask on the terminal."""
    raise ValueError("the key is protected by a password")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "they are not in PEM"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
