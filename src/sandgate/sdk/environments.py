"""The calls of a client about environments and the code that is run in them."""

from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, TypeVar, Unpack

from sandgate.core.errors import EnvironmentNotFound
from sandgate.sdk.answers import Environment, Execution
from sandgate.sdk.calls import leave_out_none
from sandgate.sdk.errors import ApiError
from sandgate.sdk.events import ServerEvent
from sandgate.sdk.executions import ExecutionCalls
from sandgate.sdk.files import FileCalls, environment_path
from sandgate.sdk.metrics import Metrics
from sandgate.sdk.network import NetworkCalls
from sandgate.sdk.ports import PortCalls
from sandgate.sdk.processes import ProcessCalls
from sandgate.sdk.reading import quote_part
from sandgate.sdk.secrets import SecretCalls
from sandgate.sdk.sessions import SessionCalls
from sandgate.sdk.snapshots import SnapshotCalls
from sandgate.sdk.templates import TemplateCalls
from sandgate.sdk.transport import Asked
from sandgate.sdk.volumes import Mount, VolumeCalls

T = TypeVar("T")

_ENVIRONMENTS = "/api/v1/sandbox/environments"
# What the server takes for code that says nothing about its time.
_DEFAULT_TIMEOUT_S = 30.0


class CodeOptions(TypedDict, total=False):
    """What may come with code. ``files`` are contents by path, written before it begins."""

    session_id: str | None
    timeout_s: float | None
    language: str | None
    stdin: str | None
    env: Mapping[str, str] | None
    cwd: str | None
    args: Sequence[str] | None
    files: Mapping[str, str | bytes] | None


def execution_body(code: str, **more: Unpack[CodeOptions]) -> dict[str, Any]:
    """The body of a request to run code; what is None is left out."""
    env, args, files = more.get("env"), more.get("args"), more.get("files")
    body = {
        "timeout": more.get("timeout_s"),
        "session_id": more.get("session_id"),
        "language": more.get("language"),
        "stdin": more.get("stdin"),
        "env": None if env is None else dict(env),
        "cwd": more.get("cwd"),
        "args": None if args is None else list(args),
        "files": None if files is None else [_file(path, content) for path, content in files.items()],
    }
    return {"code": code, **leave_out_none(body)}


def _file(path: str, content: str | bytes) -> dict[str, str]:
    if isinstance(content, str):
        return {"path": path, "content": content}
    return {"path": path, "content_base64": b64encode(content).decode()}


def _copy(given: Mapping[str, T] | None) -> dict[str, T] | None:
    return None if given is None else dict(given)


class EnvironmentOptions(TypedDict, total=False):
    """What may be asked for with an environment.

    ``on_timeout`` is ``delete`` or ``pause``; not used for ``idle_timeout_s`` it is paused, with 0 never.
    ``isolation`` is the class of its walls: ``standard``, ``gvisor`` or ``process``, where the server holds it.
    ``allow`` are the hosts that its code may reach. All code in it finds ``env`` as environment variables, and your
    code your ``secrets`` of these names. With ``snapshot_id`` it begins with the files of that. It has those
    ``volumes`` of yours that are named. ``key`` makes it safe to ask again with the same one.
    """

    snapshot_id: str | None
    timeout_s: int | None
    metadata: Mapping[str, str] | None
    isolation: str | None
    limits: Mapping[str, float] | None
    allow: Sequence[str] | None
    env: Mapping[str, str] | None
    secrets: Sequence[str] | None
    on_timeout: str | None
    idle_timeout_s: int | None
    volumes: Sequence[Mount] | None
    key: str | None


class WhichOnes(TypedDict, total=False):
    """Of which template, and of which name."""

    template: str
    name: str


class EnvironmentCalls(
    TemplateCalls,
    ExecutionCalls,
    ProcessCalls,
    FileCalls,
    NetworkCalls,
    PortCalls,
    SecretCalls,
    SessionCalls,
    SnapshotCalls,
    VolumeCalls,
):
    """The part of :class:`sandgate.sdk.client.Client` that is about environments; it raises what that one does."""

    def create_environment(
        self, name: str, template: str | None = None, **more: Unpack[EnvironmentOptions]
    ) -> Environment:
        """A new environment; it can be used at once, though it may still be ``creating``."""
        body = {
            "name": name,
            "template": template,
            "snapshot_id": more.get("snapshot_id"),
            "timeout": more.get("timeout_s"),
            "metadata": _copy(more.get("metadata")),
            "isolation": more.get("isolation"),
            "limits": _copy(more.get("limits")),
            "network": None if more.get("allow") is None else {"allow": list(more["allow"] or ())},
            "env": _copy(more.get("env")),
            "secrets": None if more.get("secrets") is None else list(more["secrets"] or ()),
            "on_timeout": more.get("on_timeout"),
            "idle_timeout": more.get("idle_timeout_s"),
            "volumes": None if more.get("volumes") is None else [each.to_json() for each in more["volumes"] or ()],
        }
        return self._get(Environment, Asked("POST", _ENVIRONMENTS, leave_out_none(body), key=more.get("key")))

    @contextmanager
    def opened_environment(
        self, name: str, template: str | None = None, **more: Unpack[EnvironmentOptions]
    ) -> Generator[Environment, None, None]:
        """The same for the time of a ``with`` block: it is deleted at the end, whatever comes to pass."""
        made = self.create_environment(name, template, **more)
        try:
            yield made
        finally:
            try:
                self.delete_environment(made.environment_id)
            except ApiError as error:
                if error.code != EnvironmentNotFound.code:
                    raise

    def get_environment(self, environment_id: str) -> Environment:
        """One environment."""
        return self._get(Environment, Asked("GET", environment_path(environment_id)))

    def update_environment(
        self,
        environment_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: int | None = None,
        on_timeout: str | None = None,
        idle_timeout_s: int | None = None,
    ) -> Environment:
        """Change what is given; times are counted anew from now. For hosts see :meth:`set_network`."""
        body = {
            "name": name,
            "metadata": None if metadata is None else dict(metadata),
            "timeout": timeout_s,
            "on_timeout": on_timeout,
            "idle_timeout": idle_timeout_s,
        }
        return self._get(Environment, Asked("PATCH", environment_path(environment_id), leave_out_none(body)))

    def get_metrics(self, environment_id: str) -> Metrics:
        """What a live environment uses now, and has used at most."""
        return self._get(Metrics, Asked("GET", f"{environment_path(environment_id)}/metrics"))

    def pause_environment(self, environment_id: str) -> Environment:
        """Let an environment stand still; whatever uses it next resumes it."""
        return self._get(Environment, Asked("POST", f"{environment_path(environment_id)}/pause"))

    def resume_environment(self, environment_id: str) -> Environment:
        """Let an environment that is paused go on."""
        return self._get(Environment, Asked("POST", f"{environment_path(environment_id)}/resume"))

    def list_environments(
        self, *, statuses: Sequence[str] = (), metadata: Mapping[str, str] | None = None, **more: Unpack[WhichOnes]
    ) -> Generator[Environment, None, None]:
        """Your environments, newest first, asked for page by page; by default those that live.

        ``metadata`` is what each has of its labels, at least.
        """
        filters: dict[str, str | Sequence[str]] = {"status": statuses}
        filters |= {f"metadata.{label}": value for label, value in (metadata or {}).items()}
        filters |= {filter_name: str(value) for filter_name, value in more.items()}
        return self._list(Environment, _ENVIRONMENTS, "environments", filters)

    def delete_environment(self, environment_id: str) -> None:
        """End an environment; returns once nothing of it runs any more."""
        self._transport.ask(Asked("DELETE", environment_path(environment_id)))

    def execute(
        self, environment_id: str, code: str, *, key: str | None = None, **more: Unpack[CodeOptions]
    ) -> Execution:
        """Run code to its end. ``files`` are contents by path, written before it begins.

        ``key`` makes it safe to call again with the same one: the code runs once.
        """
        timeout_s = more.get("timeout_s")
        patience_s = _DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        body = execution_body(code, **more)
        path = f"{environment_path(environment_id)}/execute"
        return self._get(Execution, Asked("POST", path, body, key=key, patience_s=patience_s))

    def begin_execution(
        self, environment_id: str, code: str, *, key: str | None = None, **more: Unpack[CodeOptions]
    ) -> Execution:
        """Let code run whoever waits; answers at once. :meth:`follow_execution` tells how it goes."""
        body = {**execution_body(code, **more), "detach": True}
        path = f"{environment_path(environment_id)}/execute"
        return self._get(Execution, Asked("POST", path, body, key=key))

    def stream_execution(
        self,
        environment_id: str,
        code: str,
        *,
        detach: bool = False,
        silence_s: float = 60.0,
        **more: Unpack[CodeOptions],
    ) -> Generator[ServerEvent, None, None]:
        """Run code and tell what happens: ``started``, ``stdout``, ``stderr``, ``result`` (in a session), ``finished``.

        The code waits for who reads this. Closing the generator early cancels it, unless ``detach`` was asked for.
        """
        body = {**execution_body(code, **more), "stream": True, "detach": detach}
        path = f"{environment_path(environment_id)}/execute"
        yield from self._stream(Asked("POST", path, body), "", silence_s)

    def follow_execution(
        self, environment_id: str, execution_id: str, last_event_id: str = "", *, silence_s: float = 60.0
    ) -> Generator[ServerEvent, None, None]:
        """The events of an execution that runs or has ended, all or after ``last_event_id``."""
        path = f"{environment_path(environment_id)}/executions/{quote_part(execution_id)}/events"
        yield from self._stream(Asked("GET", path), last_event_id, silence_s)
