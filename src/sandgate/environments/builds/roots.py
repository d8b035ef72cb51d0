"""The root file systems of templates that have their own: how they come here, and which are still of use."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.built import BuildFailed, BuiltTemplate, LayerSize, Root
from sandgate.core.errors import InvalidRequest, MechanismFault, NoUploadAwaited, RecipeTooLarge
from sandgate.core.ids import TemplateId
from sandgate.core.image import ImageReference
from sandgate.core.language import BUILT_IN
from sandgate.core.states import TemplateStatus
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.builds.base import BuildTools
from sandgate.environments.builds.log import BuildLog

ROOT_PREFIX = "root-"
"""What the names of their folders begin with."""
# And end with, when they were made of another one.
_CHANGED = "apt"
_INTERPRETER = "python3"
_PROGRAMS = (_INTERPRETER, *dict.fromkeys(command[0] for language in BUILT_IN for command in language.commands))
_PIECES_BYTES = 1 << 20
_VERSION = re.compile(r"3\.[0-9]{1,3}\.[0-9A-Za-z.+]{1,20}")


@dataclass(eq=False, slots=True)
class _Upload:
    """An archive that a build waits for; ``is_there`` once it is whole."""

    is_there: asyncio.Future[Path] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_coming: bool = False


class Roots:
    """One root file system may be that of many templates of its owner's: it goes with the last of them."""

    def __init__(self, tools: BuildTools, templates: AllTemplates, settings: Settings) -> None:
        self._layers = tools.layers
        self._images = tools.images
        self._templates = templates
        self._settings = settings
        self._uploads: dict[TemplateId, _Upload] = {}
        # Those of builds, which no row that is ready names yet.
        self._held: dict[TemplateId, Root] = {}
        # Builds whose Debian packages are to be looked up again.
        self._anew: set[TemplateId] = set()
        # Those that have begun with a root file system that has theirs.
        self._with_packages: set[TemplateId] = set()

    def begin(self, row: BuiltTemplate, *, anew: bool = False) -> None:
        """A build has begun: see to the root file system that it needs; ``anew`` with packages as they are now."""
        if anew:
            self._anew.add(row.template_id)
        root = self._find(row, _origin_of(row) if row.root is None else row.root.origin)
        if row.root is not None and not self.has_packages(row):
            # What is laid upon it was made with this one, and with no other of the same origin.
            root = row.root
        if root is not None:
            self._held[row.template_id] = root
        elif row.recipe.tar is not None:
            self._uploads[row.template_id] = _Upload()

    async def end(self, row: BuiltTemplate) -> None:
        """It is over: what it had and no template has now goes. Done twice it does nothing the second time."""
        upload = self._uploads.pop(row.template_id, None)
        if upload is not None:
            upload.is_there.cancel()
        for noted in (self._anew, self._with_packages):
            noted.discard(row.template_id)
        root = self._held.pop(row.template_id, None)
        name = _name_of(row) if root is None else root.name
        if row.recipe.has_own_root and not self._is_used(name):
            await self._layers.drop(name)

    def awaits(self, template_id: TemplateId) -> bool:
        """Whether a build waits for an archive."""
        upload = self._uploads.get(template_id)
        return upload is not None and not upload.is_there.done()

    async def drop_unused(self, root: Root) -> None:
        """Remove one that is of no template, and no build, any more."""
        if not self._is_used(root.name):
            await self._layers.drop(root.name)

    def _is_used(self, name: str) -> bool:
        of_rows = [row.root for row in self._templates.rows_with_files() if row.status is not TemplateStatus.FAILED]
        return any(root is not None and root.name == name for root in (*self._held.values(), *of_rows))

    def _find(self, row: BuiltTemplate, origin: str) -> Root | None:
        """One that was made from the same for the same owner: what is known by its digest is nobody else's.

        Better with the packages of the recipe, else without.
        """
        wanted = [origin]
        if row.recipe.apt and row.template_id not in self._anew:
            wanted.insert(0, _origin_with(origin, row.recipe.apt))
        found: dict[str, Root] = {}
        for other in self._templates.rows():
            root = other.root
            if root is None or other.owner_id != row.owner_id or other.status is not TemplateStatus.READY:
                continue
            if origin and root.origin in wanted and self._layers.has(root.name):
                found[root.origin] = root
        best = next((found[each] for each in wanted if each in found), None)
        if best is not None and best.origin != origin:
            self._with_packages.add(row.template_id)
        return best

    async def prepare(self, row: BuiltTemplate, log: BuildLog) -> Root | None:
        """The root file system of a build, as soon as it is there; None for one that rests on the server's own.

        Raises ``BuildFailed``, ``MechanismFault``.
        """
        held = self._held.get(row.template_id)
        if held is not None or not row.recipe.has_own_root:
            return held
        if row.recipe.image is not None:
            return await self._prepare_image(row, row.recipe.image, log)
        log.say(f"waiting for the archive {row.recipe.tar}")
        archive = await self._uploads[row.template_id].is_there
        try:
            return await self._lay_out(row, archive, _origin_of(row), log)
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)

    async def _prepare_image(self, row: BuiltTemplate, image: str, log: BuildLog) -> Root:
        if self._images is None:
            raise BuildFailed("this server fetches no images")
        log.say(f"image {image}")
        found = await self._images.find(ImageReference.parse(image), row.owner_id)
        origin = f"image {found.digest}"
        log.say(found.digest)
        known = self._find(row, origin)
        if known is not None:
            self._held[row.template_id] = known
            return known
        archive = self._layers.spool(_name_of(row))
        try:
            size = await found.fetch(archive, self._settings.max_template_archive_bytes)
            log.say(f"{size} bytes were fetched")
            return await self._lay_out(row, archive, origin, log)
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)

    async def _lay_out(self, row: BuiltTemplate, archive: Path, origin: str, log: BuildLog) -> Root:
        log.say("unpacking")
        try:
            said = await self._layers.keep_root(_name_of(row), archive, _PROGRAMS)
        except BuildFailed as failed:
            raise BuildFailed(f"the archive cannot be used: {failed}") from None
        root = self._held[row.template_id] = _parse(said, _name_of(row), origin)
        log.say(f"a root file system of {root.size.files} files with {root.size.size_bytes} bytes; {root.interpreter}")
        return root

    def has_packages(self, row: BuiltTemplate) -> bool:
        """Whether the root file system of a build was found with the packages of its recipe in it."""
        return row.template_id in self._with_packages

    async def keep_changed(
        self, row: BuiltTemplate, archive: AsyncIterator[bytes], installed: tuple[str, ...], log: BuildLog
    ) -> Root:
        """What packages have made of the root file system of a build, from then on its own.

        The one that it was made of goes when nobody else has it. Raises ``BuildFailed``, ``MechanismFault``.
        """
        before = self._held[row.template_id]
        places, name = before.env.get("PATH", ""), f"{_name_of(row)}{_CHANGED}"
        try:
            said = await self._layers.keep_changed_root(name, archive, _PROGRAMS, places)
            made = _parse(said, name, _origin_with(before.origin, row.recipe.apt))
        except BaseException as error:
            # Nobody knows of it yet.
            await asyncio.shield(self._layers.drop(name))
            if isinstance(error, BuildFailed):
                raise BuildFailed(f"what the packages have made of it cannot be used: {error}") from None
            raise
        lock = {line.partition("=")[0]: line for line in (*before.apt_lock, *installed)}
        made = replace(made, env=before.env, folder=before.folder, apt_lock=tuple(sorted(lock.values())))
        self._held[row.template_id] = made
        log.say(f"a root file system of {made.size.files} files with {made.size.size_bytes} bytes; {made.interpreter}")
        await self.drop_unused(before)
        return made

    def note_version(self, row: BuiltTemplate, said: str) -> Root:
        """What the interpreter says of itself. Raises ``BuildFailed``."""
        if not _VERSION.fullmatch(said):
            raise BuildFailed(
                f"the interpreter of its root file system does not say which version it is: {said[:50]!r}"
            )
        root = self._held[row.template_id] = replace(self._held[row.template_id], version=said)
        return root

    async def receive(self, row: BuiltTemplate, archive: AsyncIterator[bytes]) -> None:
        """See ``BuiltTemplates.upload``."""
        upload = self._uploads.get(row.template_id)
        if upload is None or upload.is_there.done() or upload.is_coming:
            why = "another upload is under way" if upload is not None and upload.is_coming else "it waits for none"
            raise NoUploadAwaited(f"The build of {row.reference} takes no archive: {why}")
        upload.is_coming = True
        path = self._layers.spool(_name_of(row))
        try:
            found = await self._write(path, archive, upload)
            _check_digest(found, row.recipe.tar)
            _give(upload, path, row)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))
            raise
        finally:
            upload.is_coming = False

    async def _write(self, path: Path, archive: AsyncIterator[bytes], upload: _Upload) -> str:
        """The SHA-256 of what was written. Raises as above."""
        most, size, digest = self._settings.max_template_archive_bytes, 0, hashlib.sha256()
        try:
            file = await asyncio.to_thread(_open, path)
            with os.fdopen(file, "wb", buffering=0) as out:
                async for pieces in _gather(archive):
                    size += len(pieces)
                    if size > most:
                        raise RecipeTooLarge(f"The archive has more than {most} bytes", {"limit_bytes": most})
                    if upload.is_there.done():
                        raise NoUploadAwaited("The build that the archive is for has ended")
                    await asyncio.to_thread(_write, out.fileno(), digest, pieces)
        except OSError as error:
            raise MechanismFault(f"The archive could not be written: {error.strerror}") from None
        return digest.hexdigest()


async def _gather(archive: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same in larger pieces: each is a way to a thread and back."""
    gathered: list[bytes] = []
    size = 0
    async for piece in archive:
        gathered.append(piece)
        size += len(piece)
        if size >= _PIECES_BYTES:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write(file: int, digest: Any, content: bytes) -> None:
    digest.update(content)
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _check_digest(found: str, wanted: str | None) -> None:
    if found != wanted:
        raise InvalidRequest.for_fields([("body", f"has the SHA-256 {found}; the recipe names {wanted}")])


def _name_of(row: BuiltTemplate) -> str:
    """Of the root file system that a build makes."""
    return f"{ROOT_PREFIX}{row.template_id.removeprefix('tpl-')}"


def _origin_of(row: BuiltTemplate) -> str:
    """What root file systems are known by to be the same; empty for what has to be looked up first."""
    return "" if row.recipe.tar is None else f"tar sha256:{row.recipe.tar}"


def _origin_with(origin: str, packages: tuple[str, ...]) -> str:
    """Of what packages make of one; empty where that is not known."""
    words = "\n".join((origin, *sorted(set(packages))))
    return f"apt sha256:{hashlib.sha256(words.encode()).hexdigest()}" if origin else ""


def _give(upload: _Upload, path: Path, row: BuiltTemplate) -> None:
    """Tell the build that its archive is there. Raises ``NoUploadAwaited`` when it has ended meanwhile."""
    if upload.is_there.done():
        raise NoUploadAwaited(f"The build of {row.reference} takes no archive: it has ended")
    upload.is_there.set_result(path)


def _parse(said: Mapping[str, Any], name: str, origin: str) -> Root:
    """What was found in an archive. Raises ``BuildFailed``."""
    programs = said["programs"]
    if _INTERPRETER not in programs:
        raise BuildFailed(
            f"there is no {_INTERPRETER} in its PATH, {said['env']['PATH'][:500]}; "
            "a root file system needs Python 3.8 or newer"
        )
    languages = tuple(each.name for each in BUILT_IN if any(command[0] in programs for command in each.commands))
    size = LayerSize(said["files"], said["size_bytes"])
    return Root(name, origin, programs[_INTERPRETER], said["env"], size, folder=said["folder"], languages=languages)
