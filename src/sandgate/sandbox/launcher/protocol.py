"""The launcher's verbs, and how requests and answers look on its socket.

The socket is of type SOCK_SEQPACKET: one message, one datagram, JSON in UTF-8. A request is
``{"verb", "number", …}``, an answer ``{"number", "ok": true, …}`` or ``{"number", "ok": false, "error"}``, and what
happens unasked ``{"event": "ended", "environment_id", "reason"}``, with a ``"tag"`` for an execution that was kept, or
``{"event": "memory", "environment_id"}`` for a sandbox of gVisor's that uses more than it may: what runs in it has to
be ended before the kernel ends all.

The answers to ``create``, ``adopt`` and ``add_slot`` carry one descriptor: the gateway's end of the control socket of
the first slot, or of the added one. Behind that of ``create`` may come the three ends of a child that was asked for
already (``ENDS``). The answer to ``hello`` has the classes that the launcher makes, the one to ``adopt`` the class of
the sandbox; it goes on, a message for each, with what was kept for an earlier gateway:
``{"kept": {"tag", "slot", "child", "kills", "age_s"}, "ends"}`` and so many descriptors. ``keep``, ``let_go`` and
``hold`` are notices: they have no answer.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation

PROTOCOL_VERSION = 3
MESSAGE_LIMIT = 64 * 1024
EXPIRED = "expired"
OUT_OF_MEMORY = "it ran out of memory"

_ENVIRONMENT_ID = re.compile(r"env-[0-9a-z]{12,40}")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TAG = re.compile(r"[A-Za-z0-9_.:|-]{1,250}")
_LARGEST = 2**53
_IDS_IN_A_PART = 500
_LONGEST_LIFETIME_S = 2 * 86_400.0


class ProtocolError(Exception):
    """A request that is not one of the verbs with its arguments."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is there?"""


@dataclass(frozen=True, slots=True)
class Create:
    """Make a sandbox of a class."""

    environment_id: str
    isolation: Isolation
    template: str
    limits: Limits
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hand over the control socket of a sandbox that an earlier gateway had."""

    environment_id: str


@dataclass(frozen=True, slots=True)
class AddSlot:
    """Make another slot in a sandbox, for executions side by side."""

    environment_id: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Hold the three descriptors of an execution's child for the next gateway, should this one die.

    ``tag`` is what that gateway knows the execution by, ``slot`` what the gateways call the slot: 0 is the first one,
    and the control socket of any other comes as a fourth descriptor. ``kills`` is how often memory had run out in the
    sandbox before it began. It ends when no gateway says ``hold`` for ``lifetime_s``.
    """

    environment_id: str
    tag: str
    slot: int
    child: int
    kills: int
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class LetGo:
    """Keep an execution no longer: what it came to is known."""

    environment_id: str
    tag: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Let everything that is kept live for so long from now."""

    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Destroy:
    """End a sandbox; answered when nothing of it runs any more."""

    environment_id: str


@dataclass(frozen=True, slots=True)
class Extend:
    """Count the lifetime anew from now."""

    environment_id: str
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox uses."""

    environment_id: str


@dataclass(frozen=True, slots=True)
class ListSandboxes:
    """Which sandboxes there are."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End every sandbox and zygote, remove what was made, and exit."""


Request = Hello | Create | Adopt | AddSlot | Keep | LetGo | Hold | Destroy | Extend | Usage | ListSandboxes | Shutdown


def _text(message: Mapping[str, Any], field: str, pattern: re.Pattern[str]) -> str:
    value = message.get(field)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{field} is not of the form {pattern.pattern}")
    return value


def _environment_id(message: Mapping[str, Any]) -> str:
    return _text(message, "environment_id", _ENVIRONMENT_ID)


def _isolation(message: Mapping[str, Any]) -> Isolation:
    value = message.get("isolation")
    if not isinstance(value, str) or value not in tuple(Isolation):
        raise ProtocolError("isolation is not one of " + ", ".join(Isolation))
    return Isolation(value)


def _lifetime(message: Mapping[str, Any]) -> float:
    value = message.get("lifetime_s")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError("lifetime_s is not a number")
    # What is no number is not between any two.
    if not 0 <= value <= _LONGEST_LIFETIME_S:
        raise ProtocolError(f"lifetime_s is not between 0 and {_LONGEST_LIFETIME_S:.0f}")
    return float(value)


def _count(message: Mapping[str, Any], field: str, least: int) -> int:
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _LARGEST:
        raise ProtocolError(f"{field} is not a whole number from {least} on")
    return value


def _keep(message: Mapping[str, Any]) -> Keep:
    return Keep(
        _environment_id(message),
        _text(message, "tag", _TAG),
        _count(message, "slot", 0),
        _count(message, "child", 1),
        _count(message, "kills", 0),
        _lifetime(message),
    )


def _limits(message: Mapping[str, Any]) -> Limits:
    value = message.get("limits")
    names = set(Limits.__slots__)
    if not isinstance(value, dict) or set(value) != names:
        raise ProtocolError("limits are not " + ", ".join(sorted(names)))
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < _LARGEST:
            raise ProtocolError(f"limits.{name} is not a positive whole number")
    return Limits(**value)


_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], Request]] = {
    "hello": lambda _message: Hello(),
    "create": lambda message: Create(
        _environment_id(message),
        _isolation(message),
        _text(message, "template", _TEMPLATE),
        _limits(message),
        _lifetime(message),
    ),
    "adopt": lambda message: Adopt(_environment_id(message)),
    "add_slot": lambda message: AddSlot(_environment_id(message)),
    "keep": _keep,
    "let_go": lambda message: LetGo(_environment_id(message), _text(message, "tag", _TAG)),
    "hold": lambda message: Hold(_lifetime(message)),
    "destroy": lambda message: Destroy(_environment_id(message)),
    "extend": lambda message: Extend(_environment_id(message), _lifetime(message)),
    "usage": lambda message: Usage(_environment_id(message)),
    "list": lambda _message: ListSandboxes(),
    "shutdown": lambda _message: Shutdown(),
}


def parse_request(data: bytes) -> tuple[int, Request]:
    """The number and the request of a message. Raises ``ProtocolError`` and nothing else."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the message is not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("the message is not an object")
    number, verb = message.get("number"), message.get("verb")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _LARGEST:
        raise ProtocolError("number is not a whole number")
    parser = _PARSERS.get(verb) if isinstance(verb, str) else None
    if parser is None:
        raise ProtocolError("the verb is not one of " + ", ".join(_PARSERS))
    return number, parser(message)


def list_in_parts(names: Sequence[str]) -> list[dict[str, Any]]:
    """The answers to ``list``, because a datagram holds some hundreds of ids: the last one is without more."""
    parts = [names[start : start + _IDS_IN_A_PART] for start in range(0, len(names), _IDS_IN_A_PART)] or [[]]
    return [{"environment_ids": part, "more": place + 1 < len(parts)} for place, part in enumerate(parts)]


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as one datagram."""
    return json.dumps(message, separators=(",", ":")).encode()
