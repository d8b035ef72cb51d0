"""All templates: the server's own, and those that were built on it, by whom may use them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sandgate.core.built import BuiltTemplate, Root, split_reference
from sandgate.core.errors import TemplateNameTaken, TemplateNotFound, TemplateUnavailable, UnknownTemplate
from sandgate.core.ids import TemplateId, UserId
from sandgate.core.language import BUILT_IN, Language
from sandgate.core.states import Isolation, TemplateStatus
from sandgate.core.template import Template
from sandgate.environments.base import Templates

# What ids begin with, and names therefore do not.
_ID = "tpl-"


class AllTemplates:
    """Implements :class:`sandgate.environments.base.Templates`; ``own`` are those that the server has by itself.

    A name belongs to the server, to everybody, or to one user; for each user it means one thing.
    """

    def __init__(self, own: Templates) -> None:
        self.own = own
        self._rows: dict[TemplateId, BuiltTemplate] = {}
        # Those that nothing begins with any more, though what belongs to them is still there.
        self._leaving: dict[TemplateId, BuiltTemplate] = {}
        # Environments are asked for by name: nobody's search is as long as everybody's templates are many.
        self._named: dict[str, dict[TemplateId, BuiltTemplate]] = {}
        # Names of rows that are being written: whose they are to be, and whether they are for everybody.
        self._coming: list[tuple[str, UserId, bool]] = []

    def put(self, row: BuiltTemplate) -> None:
        """Know a row, or that it has changed. What its files hold is of use to its build alone."""
        if row.status is not TemplateStatus.BUILDING:
            row = replace(row, recipe=replace(row.recipe, files=()))
        self._leaving.pop(row.template_id, None)
        self._rows[row.template_id] = row
        self._named.setdefault(row.name, {})[row.template_id] = row

    def put_back(self, row: BuiltTemplate) -> None:
        """Know a row again, unless something newer is known of it by now."""
        if row.template_id not in self._rows:
            self.put(row)

    def set_aside(self, template_id: TemplateId) -> None:
        """Let nothing begin with it any more; it needs what belongs to it until it is removed."""
        row = self._rows.pop(template_id, None)
        if row is None:
            return
        self._leaving[template_id] = row
        del self._named[row.name][template_id]
        if not self._named[row.name]:
            del self._named[row.name]

    def remove(self, template_id: TemplateId) -> None:
        """Forget a row."""
        self.set_aside(template_id)
        self._leaving.pop(template_id, None)

    def rows(self) -> Sequence[BuiltTemplate]:
        """All that something can begin with, or could."""
        return tuple(self._rows.values())

    def rows_with_files(self) -> Sequence[BuiltTemplate]:
        """Those, and the ones that were set aside."""
        return (*self._rows.values(), *self._leaving.values())

    def own_versions(self, name: str, owner_id: UserId) -> Sequence[BuiltTemplate]:
        """The rows of one name that belong to a user."""
        return [row for row in self._named.get(name, {}).values() if row.owner_id == owner_id]

    def list(self, user_id: UserId | None = None) -> Sequence[Template]:
        """See ``Templates``; of those that were built the newest version of each that the user may use."""
        return self.list_for(user_id)

    def list_for(self, user_id: UserId | None, *, sees_all: bool = False) -> Sequence[Template]:
        """As :meth:`list`; with ``sees_all`` also what belongs to others."""
        visible = sorted(self._visible(user_id, sees_all=sees_all), key=lambda row: row.version)
        newest = {(row.name, row.owner_id): row for row in visible}
        return [*self.own.list(user_id), *(self._describe(newest[key]) for key in sorted(newest))]

    def versions(self, name: str, user_id: UserId, *, sees_all: bool = False) -> Sequence[Template]:
        """All of one name, newest first."""
        found = self._visible(user_id, name, sees_all=sees_all)
        return [self._describe(row) for row in sorted(found, key=lambda row: row.template_id, reverse=True)]

    def get(self, name: str, user_id: UserId | None = None) -> Template:
        """See ``Templates``; ``name@version``, or the newest version of a name."""
        found = self._find(name, user_id)
        return self.own.get(name, user_id) if found is None else self._describe(found)

    def check(self, name: str, user_id: UserId | None = None) -> Template:
        """See ``Templates``; without a version the newest one that is ready."""
        found = self._find_ready(name, user_id) or self._find(name, user_id)
        if found is None:
            return self._check_own(name, user_id)
        template = self._describe(found)
        if template.unavailable_reason is not None:
            raise TemplateUnavailable(
                f"The template {template.reference} cannot be used: {template.unavailable_reason}",
                {"template": template.reference, "reason": template.unavailable_reason},
            )
        return template

    def look(self, name: str, user_id: UserId, *, sees_all: bool) -> Template:
        """As :meth:`get`; with ``sees_all`` also what belongs to others, by its id."""
        found = self._find(name, user_id, sees_all=sees_all)
        return self.own.get(name, user_id) if found is None else self._describe(found)

    def find_row(self, name: str, user_id: UserId, *, sees_all: bool) -> BuiltTemplate:
        """The newest built version of a name, or the one that it names. Raises ``TemplateNotFound``."""
        found = self._find(name, user_id, sees_all=sees_all)
        if found is None:
            # Of one that the server has by itself there is nothing of the kind, either.
            self.own.get(name, user_id)
            raise TemplateNotFound(f"The template {name} was not built here")
        return found

    def check_name(self, name: str, user_id: UserId, *, is_public: bool) -> None:
        """Raises ``TemplateNameTaken`` where it means something else, for this user or one that it would mean it for.

        It may be about to.
        """
        there = [(row.name, row.owner_id, row.is_public) for row in self._named.get(name, {}).values()]
        others = [other for other in (*there, *self._coming) if other[0] == name and other[1] != user_id]
        is_own = name.startswith(_ID) or any(template.name == name for template in self.own.list())
        if is_own or any(is_public or for_everybody for _name, _owner_id, for_everybody in others):
            raise TemplateNameTaken(f"The name {name} is that of another template; choose another one", {"name": name})

    @contextmanager
    def reserved(self, name: str, user_id: UserId, *, is_public: bool) -> Iterator[None]:
        """Keep a name, as long as the block lasts, for a row that is known at its end. Raises ``TemplateNameTaken``."""
        self.check_name(name, user_id, is_public=is_public)
        self._coming.append((name, user_id, is_public))
        try:
            yield
        finally:
            self._coming.remove((name, user_id, is_public))

    def _check_own(self, name: str, user_id: UserId | None) -> Template:
        """One of the server's own; those that do not know it are told of the others, too."""
        try:
            return self.own.check(name, user_id)
        except UnknownTemplate as error:
            known = [template.name for template in self.list(user_id)]
            message = f"There is no template {name!r}; there are: {', '.join(known)}"
            raise UnknownTemplate(message, {**error.details, "known": known}) from None

    def _visible(
        self, user_id: UserId | None, name: str | None = None, *, sees_all: bool = False
    ) -> Sequence[BuiltTemplate]:
        """Those that the user may use, of one name or of all."""
        rows = self._rows if name is None else self._named.get(name, {})
        return [row for row in rows.values() if sees_all or row.is_public or row.owner_id == user_id]

    def _find(self, name: str, user_id: UserId | None, *, sees_all: bool = False) -> BuiltTemplate | None:
        if name.startswith(_ID):
            row = self._rows.get(TemplateId(name))
            is_seen = row is not None and (sees_all or row.is_public or row.owner_id == user_id)
            return row if is_seen else None
        wanted, version = split_reference(name)
        found = self._visible(user_id, wanted)
        if version is not None:
            return next((row for row in found if str(row.version) == version), None)
        return max(found, key=lambda row: row.version, default=None)

    def _find_ready(self, name: str, user_id: UserId | None) -> BuiltTemplate | None:
        found = [row for row in self._visible(user_id, name) if row.status is TemplateStatus.READY]
        return max(found, key=lambda row: row.version, default=None)

    def rooted(self, root: Root | None = None) -> Template:
        """What rests on a root file system of its own: in everything else as the server's own templates are."""
        own = self.own.list()[0]
        there = () if root is None else root.languages
        return replace(
            own,
            name="",
            language_version="" if root is None else root.version,
            interpreter=None if root is None else root.interpreter,
            prefix=None,
            preload=(),
            unavailable_reason=None,
            languages=tuple(language for language in BUILT_IN if language.name in there),
        )

    def _describe(self, row: BuiltTemplate) -> Template:
        """As what environments are made from."""
        base = self.rooted(row.root) if row.recipe.has_own_root else self.own.get(row.recipe.lowest)
        return replace(
            base,
            name=row.name,
            limits=replace(base.limits, **row.recipe.limits.given()),
            preload=row.recipe.preload,
            unavailable_reason=_unavailable(row, base),
            languages=_merge(base.languages, row.recipe.languages),
            isolations=tuple(isolation for isolation in base.isolations if isolation is not Isolation.PROCESS),
            built=row,
        )


def _merge(languages: Sequence[Language], own: Sequence[Language]) -> tuple[Language, ...]:
    """Those of a template's own take the place of others of their names."""
    return tuple({language.name: language for language in (*languages, *own)}.values())


def _unavailable(row: BuiltTemplate, base: Template) -> str | None:
    if row.status is TemplateStatus.BUILDING:
        return "it is still being built"
    if row.status is TemplateStatus.FAILED:
        return f"its build has failed: {row.status_reason}"
    if not row.recipe.has_own_root and base.interpreter != row.interpreter:
        return f"it was built with {row.interpreter}, which is {base.name} no more; build it again"
    return None
