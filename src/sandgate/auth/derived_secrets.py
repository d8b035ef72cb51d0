"""Secrets that are kept nowhere: each follows from a key of this server and from what it is for.

The key is a file of its own beside the signing keys; ``sandgate keys rotate`` leaves it alone. Servers that share a
database have to share the folder of keys.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from sandgate.auth.private_files import create_private_file, make_private_folder, read_private_file
from sandgate.core.errors import ConfigurationError

_FILE = "derived-secrets.key"
_KEY_BYTES = 32


class DerivedSecrets:
    """The key of one folder. Call ``open`` first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = b""

    @property
    def exists(self) -> bool:
        """Whether there is a key already."""
        return (self._folder / _FILE).exists()

    def open(self) -> None:
        """Read the key; make it where there is none. Raises ``ConfigurationError``."""
        make_private_folder(self._folder)
        path = self._folder / _FILE
        found = read_private_file(path)
        if found is None:
            # Of several processes one makes it; what there is then is everybody's.
            create_private_file(path, base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
            found = read_private_file(path) or b""
        self._key = _parse(path, found)

    def derive(self, purpose: str, *parts: bytes) -> bytes:
        """The 256 bits for a purpose and its parts; different for any other purpose or parts.

        Source: RFC 5869, HKDF-Expand with SHA-256 for one block; the key is uniformly random, so that there is
        nothing to extract.
        """
        if not self._key:
            raise ConfigurationError("The key that secrets follow from has not been read")
        named = [purpose.encode(), *parts]
        info = b"".join(len(part).to_bytes(4, "big") + part for part in named)
        return hmac.digest(self._key, info + b"\x01", hashlib.sha256)


def _parse(path: Path, data: bytes) -> bytes:
    try:
        key = base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(f"{path} is not a key of 256 bits; restore it from a backup", {"path": str(path)})
    return key
