"""Images of registries, fetched as image archives. Source: the OCI distribution specification; for tokens, docker's
"Token authentication specification".
"""

import asyncio
import hashlib
import io
import json
import re
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sandgate.core.built import BuildFailed
from sandgate.core.errors import MechanismFault
from sandgate.core.image import ImageReference
from sandgate.sandbox.image_archive import choose_manifest
from sandgate.sandbox.registry.fetching import Fetcher, Reply
from sandgate.sandbox.root_tree import Refused

_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
_LONGEST_MANIFEST_BYTES = 4 * 1024**2
_LONGEST_TOKEN_BYTES = 64 * 1024
_MOST_LAYERS = 256
_UNAUTHORIZED, _FOUND = 401, 200


class RegistryImages:
    """See :class:`sandgate.environments.builds.base.Images`."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def find(self, reference: ImageReference, owner: str) -> "RegistryImage":
        """The image that a reference stands for now, that for this machine. Raises ``BuildFailed``."""
        session = _Session(self._fetcher, reference, owner)
        text = await session.manifest(reference.digest or reference.tag or "", reference.digest)
        document = _parse(text)
        if isinstance(document.get("manifests"), list):
            try:
                digest = choose_manifest(document["manifests"]).get("digest")
            except Refused as refused:
                raise BuildFailed(f"the image cannot be used: {refused}") from None
            digest = _check_digest(digest)
            text = await session.manifest(digest, digest)
            document = _parse(text)
        return RegistryImage(session, text, _blobs(document))


class RegistryImage:
    """One image, of which the manifest is known. ``digest`` is that of its manifest."""

    def __init__(self, session: "_Session", manifest: bytes, blobs: Sequence[tuple[str, int]]) -> None:
        self.digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self._session = session
        self._manifest = manifest
        self._blobs = blobs

    async def fetch(self, path: Path, most_bytes: int) -> int:
        """Write all of it to an image archive, each part being what its digest says; how many bytes it is.

        Raises ``BuildFailed``, before anything is fetched when it is more than ``most_bytes``; ``MechanismFault``.
        """
        size = sum(length for _digest, length in self._blobs)
        if size > most_bytes:
            raise BuildFailed(f"the image has {size} bytes; {most_bytes} is the most")
        index = json.dumps({"manifests": [{"digest": self.digest, "size": len(self._manifest)}]}).encode()
        try:
            with await asyncio.to_thread(path.open, "wb") as file:
                _add(file, "index.json", index)
                _add(file, _name(self.digest), self._manifest)
                for digest, length in self._blobs:
                    file.write(_head(_name(digest), length))
                    async with aclosing(self._session.blob(digest, length)) as pieces:
                        async for piece in pieces:
                            await asyncio.to_thread(file.write, piece)
                    file.write(b"\0" * (-length % tarfile.BLOCKSIZE))
                file.write(b"\0" * 2 * tarfile.BLOCKSIZE)
        except OSError as error:
            raise MechanismFault(f"The image could not be written: {error.strerror}") from None
        return size


class _Session:
    """Requests about one image, with the token that the registry wants for them."""

    def __init__(self, fetcher: Fetcher, reference: ImageReference, owner: str) -> None:
        self._fetcher = fetcher
        self._owner = owner
        self._name = reference.name
        self._base = f"{fetcher.scheme_of(reference.authority)}://{reference.authority}/v2/{reference.name}"
        self._token = ""

    async def manifest(self, which: str, digest: str | None) -> bytes:
        """The text of a manifest. Raises ``BuildFailed``."""
        async with self._asked(f"{self._base}/manifests/{which}", {"Accept": _MANIFESTS}) as reply:
            text = await reply.read(_LONGEST_MANIFEST_BYTES)
        if digest is not None and f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
            raise BuildFailed(f"the manifest that the registry sends is not {digest}")
        return text

    async def blob(self, digest: str, length: int) -> AsyncGenerator[bytes, None]:
        """A part, piece by piece. Raises ``BuildFailed``, at the end when it was not the one."""
        found, size = hashlib.sha256(), 0
        async with self._asked(f"{self._base}/blobs/{digest}", {}) as reply:
            async for piece in reply.pieces:
                size += len(piece)
                if size > length:
                    break
                found.update(piece)
                yield piece
        if size != length or f"sha256:{found.hexdigest()}" != digest:
            raise BuildFailed(f"what the registry sends is not {digest}")

    @asynccontextmanager
    async def _asked(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Reply]:
        """The reply that has what was asked for. Raises ``BuildFailed``."""
        async with AsyncExitStack() as open_replies:
            for _attempt in range(2):
                authorization = {"Authorization": f"Bearer {self._token}"} if self._token else {}
                getting = self._fetcher.get(url, {**headers, **authorization}, self._owner)
                reply = await open_replies.enter_async_context(getting)
                if reply.status == _FOUND:
                    yield reply
                    return
                if reply.status != _UNAUTHORIZED or self._token:
                    raise BuildFailed(f"the registry answers {reply.status} to {url.partition('/v2/')[2]}")
                self._token = await self._authorize(reply.headers.get("www-authenticate", ""))
        raise BuildFailed("the registry does not take the token that it gave")

    async def _authorize(self, challenge: str) -> str:
        """A token for everybody, as the registry says that it is to be had. Raises ``BuildFailed``."""
        kind, _, rest = challenge.partition(" ")
        stated = dict(_PARAMETER.findall(rest))
        if kind.lower() != "bearer" or "realm" not in stated:
            raise BuildFailed("the registry wants credentials, and none are given to it")
        query = {"scope": f"repository:{self._name}:pull"}
        query |= {"service": stated["service"]} if "service" in stated else {}
        url = f"{stated['realm']}{'&' if '?' in stated['realm'] else '?'}{urlencode(query)}"
        async with self._fetcher.get(url, {}, self._owner) as reply:
            if reply.status != _FOUND:
                raise BuildFailed(f"the registry gives no token without credentials: {reply.status}")
            answer = _parse(await reply.read(_LONGEST_TOKEN_BYTES))
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise BuildFailed("the registry gives no token that is one")
        return token


def _parse(text: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BuildFailed("the registry does not answer in JSON")
    return document


def _check_digest(digest: object) -> str:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BuildFailed("the image names a part of itself by something else than its sha256")
    return digest


def _blobs(manifest: Mapping[str, Any]) -> Sequence[tuple[str, int]]:
    """Digest and size of the configuration and the layers. Raises ``BuildFailed``."""
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise BuildFailed(f"what the registry has is no image, or one of more than {_MOST_LAYERS} layers")
    found: dict[str, int] = {}
    for each in [manifest.get("config"), *layers]:
        size = each.get("size") if isinstance(each, dict) else None
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise BuildFailed("the image does not say how large it is")
        found[_check_digest(each.get("digest"))] = size
    return tuple(found.items())


def _name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _head(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf()


def _add(file: io.BufferedWriter, name: str, content: bytes) -> None:
    file.write(_head(name, len(content)) + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))
