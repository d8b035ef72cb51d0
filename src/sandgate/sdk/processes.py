"""The calls of a client about processes in the background of environments."""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from sandgate.sdk.answers import Process, Processes, ProcessOutput, TerminalTicket
from sandgate.sdk.calls import Calls, leave_out_none
from sandgate.sdk.events import ServerEvent
from sandgate.sdk.files import environment_path
from sandgate.sdk.reading import quote_part
from sandgate.sdk.transport import Asked

if TYPE_CHECKING:
    from sandgate.sdk.terminal import Terminal


class ProcessOptions(TypedDict, total=False):
    """What may come with a command. ``pty`` is rows and columns."""

    env: Mapping[str, str] | None
    cwd: str | None
    stdin: bool
    pty: tuple[int, int] | None
    timeout_s: float | None
    name: str | None
    metadata: Mapping[str, str] | None


def process_path(environment_id: str, process_id: str) -> str:
    """Where a process is."""
    return f"{environment_path(environment_id)}/processes/{quote_part(process_id)}"


class ProcessCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about processes; it raises what that one does."""

    def start_process(
        self,
        environment_id: str,
        command: str | Sequence[str],
        *,
        key: str | None = None,
        **more: Unpack[ProcessOptions],
    ) -> Process:
        """Start a command in the background: a line for a shell, or the words of a program."""
        size = more.get("pty")
        body = {
            "command": command if isinstance(command, str) else None,
            "argv": None if isinstance(command, str) else list(command),
            "env": more.get("env") and dict(more["env"] or {}),
            "cwd": more.get("cwd"),
            "stdin": more.get("stdin"),
            "pty": None if size is None else {"rows": size[0], "cols": size[1]},
            "timeout": more.get("timeout_s"),
            "name": more.get("name"),
            "metadata": more.get("metadata") and dict(more["metadata"] or {}),
        }
        path = f"{environment_path(environment_id)}/processes"
        asked = Asked("POST", path, leave_out_none(body), key=key)
        return self._get(Process, asked)

    def ask_for_terminal(
        self, environment_id: str, *, process_id: str | None = None, rows: int = 24, columns: int = 80
    ) -> TerminalTicket:
        """The address of a terminal that a browser can open once: of a process, or of a new shell."""
        body: dict[str, object] = {"rows": rows, "cols": columns}
        if process_id is not None:
            body["process_id"] = process_id
        asked = Asked("POST", f"{environment_path(environment_id)}/terminal", body)
        return self._get(TerminalTicket, asked)

    def open_terminal(
        self, environment_id: str, *, process_id: str | None = None, rows: int = 24, columns: int = 80
    ) -> "Terminal":
        """The terminal of a process, which goes on when it is left, or of a new shell, which ends then."""
        # Few open one, and what speaks web sockets takes long to import.
        from sandgate.sdk.terminal import open_terminal

        query = {"rows": str(rows), "cols": str(columns)} | ({} if process_id is None else {"process_id": process_id})
        return open_terminal(self._transport, environment_id, query)

    def list_processes(self, environment_id: str) -> list[Process]:
        """All of an environment, newest first, with those that have ended lately."""
        return self._get(Processes, Asked("GET", f"{environment_path(environment_id)}/processes")).processes

    def get_process(self, environment_id: str, process_id: str) -> Process:
        """One."""
        return self._get(Process, Asked("GET", process_path(environment_id, process_id)))

    def read_output(self, environment_id: str, process_id: str, after: str = "") -> ProcessOutput:
        """What is kept of the output behind a position."""
        query = {"after": after} if after else None
        asked = Asked("GET", f"{process_path(environment_id, process_id)}/output", query=query)
        return self._get(ProcessOutput, asked)

    def write_input(self, environment_id: str, process_id: str, data: bytes, *, eof: bool = False) -> int:
        """Give it input; how many bytes it was given. With ``eof`` there is no more."""
        query = {"eof": "true"} if eof else None
        asked = Asked("POST", f"{process_path(environment_id, process_id)}/stdin", query=query)
        return int(self._transport.send_content(asked, data)["taken"])

    def resize_process(self, environment_id: str, process_id: str, rows: int, columns: int) -> Process:
        """Give its terminal another size."""
        return self._tell(environment_id, process_id, "resize", {"rows": rows, "cols": columns})

    def signal_process(self, environment_id: str, process_id: str, signal: str) -> Process:
        """Send it a signal, as ``SIGINT``."""
        return self._tell(environment_id, process_id, "signal", {"signal": signal})

    def wait_for_process(self, environment_id: str, process_id: str, timeout_s: float = 30.0) -> Process:
        """As it is when it has ended, or the time is up."""
        return self._tell(environment_id, process_id, "wait", {"timeout": timeout_s}, timeout_s)

    def kill_process(self, environment_id: str, process_id: str) -> Process:
        """End it and all that it has started."""
        return self._get(Process, Asked("DELETE", process_path(environment_id, process_id)))

    def follow_process(
        self, environment_id: str, process_id: str, last_event_id: str = "", *, silence_s: float = 60.0
    ) -> Generator[ServerEvent, None, None]:
        """Its events, all that are kept or those after ``last_event_id``, until it has ended."""
        path = f"{process_path(environment_id, process_id)}/events"
        yield from self._stream(Asked("GET", path), last_event_id, silence_s)

    def _tell(
        self, environment_id: str, process_id: str, what: str, body: Mapping[str, object], patience_s: float = 0.0
    ) -> Process:
        path = f"{process_path(environment_id, process_id)}/{what}"
        return self._get(Process, Asked("POST", path, dict(body), patience_s=patience_s))
