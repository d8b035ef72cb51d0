"""The calls of a client about templates."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sandgate.sdk.answers import AnswerModel
from sandgate.sdk.calls import Calls
from sandgate.sdk.events import ServerEvent
from sandgate.sdk.reading import quote_part, read_answer
from sandgate.sdk.transport import Asked

_TEMPLATES = "/api/v1/sandbox/templates"


class Template(AnswerModel):
    """What environments are made from; from ``template_id`` on the fields are those of one that was built."""

    name: str
    language: str
    language_version: str
    available: bool
    unavailable_reason: str | None
    isolations: Sequence[str]
    languages: Sequence[str]
    preload: Sequence[str] = ()
    template_id: str | None = None
    owner_id: str | None = None
    version: int | None = None
    status: Literal["building", "ready", "failed"] | None = None
    status_reason: str | None = None
    awaits_upload: bool | None = None
    base: str | Mapping[str, str] | None = None
    public: bool | None = None
    packages: Sequence[str] | None = None
    apt: Sequence[str] | None = None
    digest: str | None = None
    size_bytes: int | None = None
    files: int | None = None
    creation_time: datetime | None = None
    finished_at: datetime | None = None
    lock: str | None = None
    apt_lock: Sequence[str] | None = None


class Templates(AnswerModel):
    """A list of them."""

    templates: Sequence[Template]


class TemplateCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about templates; it raises what that one does."""

    def build_template(self, recipe: Mapping[str, Any]) -> Template:
        """Begin to build what a recipe says, or find the version that is the same. See docs/templates.md."""
        return self._get(Template, Asked("POST", _TEMPLATES, dict(recipe)))

    def upload_template_archive(self, name: str, content: bytes | Iterable[bytes]) -> Template:
        """Send the archive that a build waits for, the one that its recipe names; in pieces it is sent as it comes."""
        return read_answer(Template, self._transport.send_content(Asked("PUT", f"{_path(name)}/archive"), content))

    def list_templates(self, name: str | None = None) -> Sequence[Template]:
        """The newest version of each, or all versions of one."""
        query = None if name is None else {"name": name}
        return self._get(Templates, Asked("GET", _TEMPLATES, query=query)).templates

    def get_template(self, name: str) -> Template:
        """One, by ``name``, ``name@version`` or id, with its lock."""
        return self._get(Template, Asked("GET", _path(name)))

    def delete_template(self, name: str, *, force: bool = False) -> None:
        """Delete one version, or all of a name; with ``force`` also where snapshots need it to be begun with."""
        self._transport.ask(Asked("DELETE", _path(name) + ("?force=true" if force else "")))

    def get_template_log(self, name: str) -> str:
        """What its build has said so far."""
        return str(self._transport.ask(Asked("GET", f"{_path(name)}/log"))["log"])

    def follow_template(
        self, name: str, last_event_id: str = "", *, silence_s: float = 60.0
    ) -> Generator[ServerEvent, None, None]:
        """What its build says, all of it or what comes after ``last_event_id``, to its end."""
        yield from self._stream(Asked("GET", f"{_path(name)}/events"), last_event_id, silence_s)


def _path(name: str) -> str:
    return f"{_TEMPLATES}/{quote_part(name)}"
