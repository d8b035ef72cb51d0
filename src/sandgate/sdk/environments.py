"""The calls of a client about environments and the code that is run in them."""

from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from sandgate.sdk.answers import Environment, Execution
from sandgate.sdk.events import EventParser, ServerEvent
from sandgate.sdk.files import FileCalls, environment_path
from sandgate.sdk.reading import quote_part, read_answer
from sandgate.sdk.transport import Asked, Transport

_ENVIRONMENTS = "/api/v1/sandbox/environments"
# What the server takes for code that says nothing about its time.
_DEFAULT_TIMEOUT_S = 30.0


class CodeOptions(TypedDict, total=False):
    """What may come with code. ``files`` are contents by path, written before it begins."""

    timeout_s: float | None
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
        "stdin": more.get("stdin"),
        "env": None if env is None else dict(env),
        "cwd": more.get("cwd"),
        "args": None if args is None else list(args),
        "files": None if files is None else [_file(path, content) for path, content in files.items()],
    }
    return {"code": code} | {name: value for name, value in body.items() if value is not None}


def _file(path: str, content: str | bytes) -> dict[str, str]:
    if isinstance(content, str):
        return {"path": path, "content": content}
    return {"path": path, "content_base64": b64encode(content).decode()}


class EnvironmentCalls(FileCalls):
    """The part of :class:`sandgate.sdk.client.Client` that is about environments; it raises what that one does."""

    _transport: Transport

    def create_environment(
        self,
        name: str,
        template: str,
        *,
        timeout_s: int | None = None,
        metadata: Mapping[str, str] | None = None,
        isolation: str | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> Environment:
        """A new environment; it can be used at once, though it may still be ``creating``.

        ``isolation`` is the class of its walls: ``standard``, ``gvisor`` or ``process``, where the server holds it.
        """
        body: dict[str, Any] = {"name": name, "template": template}
        body |= {} if timeout_s is None else {"timeout": timeout_s}
        body |= {} if metadata is None else {"metadata": dict(metadata)}
        body |= {} if isolation is None else {"isolation": isolation}
        body |= {} if limits is None else {"limits": dict(limits)}
        return read_answer(Environment, self._transport.ask(Asked("POST", _ENVIRONMENTS, body)))

    def get_environment(self, environment_id: str) -> Environment:
        """One environment."""
        return read_answer(Environment, self._transport.ask(Asked("GET", environment_path(environment_id))))

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
        return read_answer(Execution, self._transport.ask(Asked("POST", path, body, key=key, patience_s=patience_s)))

    def begin_execution(
        self, environment_id: str, code: str, *, key: str | None = None, **more: Unpack[CodeOptions]
    ) -> Execution:
        """Let code run whoever waits; answers at once. :meth:`follow_execution` tells how it goes."""
        body = {**execution_body(code, **more), "detach": True}
        path = f"{environment_path(environment_id)}/execute"
        return read_answer(Execution, self._transport.ask(Asked("POST", path, body, key=key)))

    def stream_execution(
        self,
        environment_id: str,
        code: str,
        *,
        detach: bool = False,
        silence_s: float = 60.0,
        **more: Unpack[CodeOptions],
    ) -> Generator[ServerEvent, None, None]:
        """Run code and tell what happens: ``started``, ``stdout``, ``stderr``, ``finished``.

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

    def _stream(self, asked: Asked, last_event_id: str, silence_s: float) -> Generator[ServerEvent, None, None]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        parser = EventParser(last_event_id)
        with self._transport.opened_stream(asked, headers, silence_s) as pieces:
            for piece in pieces:
                yield from parser.feed(piece)
