"""Seals secrets for the database: AES-256-GCM with a key of its own kind in the folder of keys.

A sealed value is a nonce of 12 random bytes and what the cipher made of the text. Whose it is and what it is called are
authenticated with it, so that nobody who can write to the database can give one user the secret of another.
"""

import secrets
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sandgate.auth.keys import KeyRing
from sandgate.core.errors import SecretUnreadable
from sandgate.core.ids import UserId

# Source: NIST SP 800-38D, section 8.2.2; random nonces of this length serve for 2**32 values under one key.
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Sealer:
    """Works with the keys of a ring of the kind ``SEALING``: the newest seals, all of them open."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def seal(self, owner_id: UserId, name: str, text: str) -> tuple[str, bytes]:
        """The id of the key, and the sealed text."""
        key = self._keys.active()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return key.kid, nonce + _cipher(key.secret).encrypt(nonce, text.encode(), _context(owner_id, name, key.kid))

    def open(self, owner_id: UserId, name: str, key_id: str, sealed: bytes) -> str:
        """The text. Raises ``SecretUnreadable``."""
        key = self._keys.find(key_id)
        if key is None:
            raise SecretUnreadable(
                f"The secret {name} was sealed with the key {key_id}, which is not in this server's folder of keys. "
                "Servers that share a database need the same sealing keys: copy its file, or store the secret again."
            )
        nonce, data = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return _cipher(key.secret).decrypt(nonce, data, _context(owner_id, name, key_id)).decode()
        except (InvalidTag, ValueError):
            raise SecretUnreadable(
                f"The secret {name} was changed where it is kept, and cannot be opened; store it again."
            ) from None


@lru_cache(8)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key[:_KEY_BYTES])


def _context(owner_id: UserId, name: str, key_id: str) -> bytes:
    """What a sealed text belongs to. None of the parts has a NUL."""
    return "\0".join(("sandgate secret", owner_id, name, key_id)).encode()
