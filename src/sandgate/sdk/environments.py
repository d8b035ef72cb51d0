"""The calls of a client about environments and the code that is run in them."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from sandgate.sdk.answers import Environment, Execution
from sandgate.sdk.reading import quote_part, read_answer
from sandgate.sdk.transport import Asked, Transport

_ENVIRONMENTS = "/api/v1/sandbox/environments"
# What the server takes for code that says nothing about its time.
_DEFAULT_TIMEOUT_S = 30.0


def execution_body(
    code: str,
    *,
    timeout_s: float | None = None,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    args: Sequence[str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
) -> dict[str, Any]:
    """The body of a request to run code; what is None is left out."""
    body = {
        "timeout": timeout_s,
        "stdin": stdin,
        "env": None if env is None else dict(env),
        "cwd": cwd,
        "args": None if args is None else list(args),
        "files": None if files is None else [_file(path, content) for path, content in files.items()],
    }
    return {"code": code} | {name: value for name, value in body.items() if value is not None}


def _file(path: str, content: str | bytes) -> dict[str, str]:
    if isinstance(content, str):
        return {"path": path, "content": content}
    return {"path": path, "content_base64": b64encode(content).decode()}


class EnvironmentCalls:
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
        self,
        environment_id: str,
        code: str,
        *,
        timeout_s: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        args: Sequence[str] | None = None,
        files: Mapping[str, str | bytes] | None = None,
        key: str | None = None,
    ) -> Execution:
        """Run code to its end. ``files`` are contents by path, written before it begins.

        ``key`` makes it safe to call again with the same one: the code runs once.
        """
        body = execution_body(code, timeout_s=timeout_s, stdin=stdin, env=env, cwd=cwd, args=args, files=files)
        patience_s = _DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        path = f"{environment_path(environment_id)}/execute"
        return read_answer(Execution, self._transport.ask(Asked("POST", path, body, key=key, patience_s=patience_s)))


def environment_path(environment_id: str) -> str:
    """Where an environment is."""
    return f"{_ENVIRONMENTS}/{quote_part(environment_id)}"
