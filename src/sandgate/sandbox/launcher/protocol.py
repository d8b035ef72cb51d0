"""The launcher's verbs, and how requests and answers look on its socket.

The socket is of type SOCK_SEQPACKET: one message, one datagram, JSON in UTF-8. A request is
``{"verb", "number", …}``, an answer ``{"number", "ok": true, …}`` or ``{"number", "ok": false, "error"}``, and what
happens unasked ``{"event": "ended", "environment_id", "reason"}``, with a ``"tag"`` for an execution that was kept, or
``{"event": "memory", "environment_id"}`` for a sandbox of gVisor's that uses more than it may: what runs in it has to
be ended before the kernel ends all.

The answers to ``create``, ``adopt`` and ``add_slot`` carry descriptors: the gateway's end of the control socket of the
first slot, or of the added one, and the ``"counters"`` that there are, by name: the processor ``time`` of the sandbox
or of the slot, and of the sandbox its memory's ``peak`` and the kernel's ``kills``. Behind those of ``create`` may come
the three ends of a child that was asked for already (``ENDS``).
The answer to ``hello`` has the classes that the launcher makes, whether it ``freezes``, and ``volumes_lack``: why it
has no volumes, empty when it has. The one to ``adopt`` has the class of the sandbox, which must not be frozen; it goes
on, a message for each, with what was kept for an earlier gateway: ``{"kept": {"tag", "slot", "child", "kills",
"age_s"}}`` and its descriptors. ``keep``, ``let_go`` and ``hold`` are notices: they have no answer. The answer to
``listen`` carries a copy of the listener, that to ``dial`` the connection, and that to ``measure_volumes``
``used_bytes`` by volume. ``copy_files`` is answered with what was copied (:class:`CopyFiles`). ``pack_files`` and
``unpack_files`` come with the descriptor of a file.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.core.template import Layer
from sandgate.sandbox.launcher.copy_verbs import CopyFiles, PackFiles, Packing, UnpackFiles, parse_copy, parse_packing
from sandgate.sandbox.launcher.fields import LARGEST, OfSandbox, ProtocolError, count_of, seconds_of, text_of
from sandgate.sandbox.launcher.volume_verbs import (
    MakeVolume,
    MeasureVolumes,
    MountVolumes,
    RemoveVolume,
    Volumes,
    parse_mounts,
    parse_volume,
    parse_volumes,
)

PROTOCOL_VERSION = 11
MESSAGE_LIMIT = 64 * 1024
EXPIRED = "expired"
OUT_OF_MEMORY = "it ran out of memory"

_ENVIRONMENT_ID = re.compile(r"env-[0-9a-z]{12,40}")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NO_TEMPLATE = re.compile("")
_LAYER = re.compile(r"tpl-[0-9a-z]{12,40}|")
_MODULE = re.compile(r"[^\W\d]\w{0,99}(?:\.[^\W\d]\w{0,99}){0,15}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ROOT = re.compile(r"root-[0-9a-z]{12,40}|")
_INSIDE = re.compile(r"(?:/[^/\0]{1,255}){1,32}|")
_LAYER_FIELDS = {
    "base",
    "folder",
    "preload",
    "env",
    "under",
    "root",
    "interpreter",
    "begins_in",
    "changes_root",
    "limits",
}
_MOST_PARTS = 256
_TAG = re.compile(r"[A-Za-z0-9_.:|-]{1,250}")
# A request has one that is less.
NUMBERS = LARGEST
_LARGEST_PORT = 65_535
_IDS_IN_A_PART = 500
# A day, and thirty to be paused.
_LONGEST_LIFETIME_S = 32 * 86_400.0


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is there?"""


@dataclass(frozen=True, slots=True)
class Create(OfSandbox):
    """Make a sandbox of a class. ``layer`` says what a template is that was built, or is being built."""

    isolation: Isolation
    template: str
    limits: Limits
    lifetime_s: float
    layer: Layer | None = None


@dataclass(frozen=True, slots=True)
class Adopt(OfSandbox):
    """Hand over the control socket of a sandbox that an earlier gateway had."""


@dataclass(frozen=True, slots=True)
class AddSlot(OfSandbox):
    """Make another slot in a sandbox, for executions side by side.

    One that is ``apart`` may go on while the rest stands still; a sandbox has one of them at a time.
    """

    apart: bool


@dataclass(frozen=True, slots=True)
class Keep(OfSandbox):
    """Hold the three descriptors of an execution's child for the next gateway, should this one die.

    ``tag`` is what that gateway knows the execution by, ``slot`` what the gateways call the slot: 0 is the first one,
    and the control socket of any other comes as a fourth descriptor. ``kills`` is how often memory had run out in the
    sandbox before it began. It ends when no gateway says ``hold`` for ``lifetime_s``; with 0 it needs nobody.
    """

    tag: str
    slot: int
    child: int
    kills: int
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class LetGo(OfSandbox):
    """Keep an execution no longer: what it came to is known."""

    tag: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Let everything that is kept live for so long from now."""

    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Destroy(OfSandbox):
    """End a sandbox; answered when nothing of it runs any more."""


@dataclass(frozen=True, slots=True)
class Extend(OfSandbox):
    """Count the lifetime anew from now."""

    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Freeze(OfSandbox):
    """Let a sandbox stand still, perhaps all but the slot that is apart; answered when it does."""

    but_apart: bool


@dataclass(frozen=True, slots=True)
class Thaw(OfSandbox):
    """Let a sandbox go on."""


@dataclass(frozen=True, slots=True)
class Usage(OfSandbox):
    """What a sandbox uses; ``looks_inside`` for what only those inside can tell, too, which may take a while."""

    looks_inside: bool = False


@dataclass(frozen=True, slots=True)
class Listen(OfSandbox):
    """Make a socket that listens on the loopback of a sandbox, and keep it; or answer the one that is kept."""


@dataclass(frozen=True, slots=True)
class Unlisten(OfSandbox):
    """Keep the listener no longer."""


@dataclass(frozen=True, slots=True)
class Dial(OfSandbox):
    """Begin a connection to a port of a sandbox's loopback, by IPv4 or IPv6 (``family`` 4 or 6)."""

    port: int
    family: int


@dataclass(frozen=True, slots=True)
class ListSandboxes:
    """Which sandboxes there are."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End every sandbox and zygote, remove what was made, and exit."""


Freezes = Freeze | Thaw
Network = Listen | Unlisten | Dial
Request = (
    Hello
    | Create
    | Adopt
    | AddSlot
    | Keep
    | LetGo
    | Hold
    | Destroy
    | Extend
    | Usage
    | Freezes
    | Network
    | Volumes
    | MountVolumes
    | CopyFiles
    | Packing
    | ListSandboxes
    | Shutdown
)


def _environment_id(message: Mapping[str, Any]) -> str:
    return text_of(message, "environment_id", _ENVIRONMENT_ID)


def _isolation(message: Mapping[str, Any]) -> Isolation:
    value = message.get("isolation")
    if not isinstance(value, str) or value not in tuple(Isolation):
        raise ProtocolError("isolation is not one of " + ", ".join(Isolation))
    return Isolation(value)


def _lifetime(message: Mapping[str, Any]) -> float:
    return seconds_of(message, "lifetime_s", _LONGEST_LIFETIME_S)


def _flag(message: Mapping[str, Any], field: str) -> bool:
    """False when it is left out."""
    value = message.get(field, False)
    if not isinstance(value, bool):
        raise ProtocolError(f"{field} is neither true nor false")
    return value


def _port(message: Mapping[str, Any]) -> int:
    port = count_of(message, "port", 1)
    if port > _LARGEST_PORT:
        raise ProtocolError(f"port is greater than {_LARGEST_PORT}")
    return port


def _family(message: Mapping[str, Any]) -> int:
    family = count_of(message, "family", 4)
    if family not in (4, 6):
        raise ProtocolError("family is neither 4 nor 6")
    return family


def _keep(message: Mapping[str, Any]) -> Keep:
    return Keep(
        _environment_id(message),
        text_of(message, "tag", _TAG),
        count_of(message, "slot", 0),
        count_of(message, "child", 1),
        count_of(message, "kills", 0),
        _lifetime(message),
    )


def _layer(message: Mapping[str, Any]) -> Layer | None:
    value = message.get("layer")
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != _LAYER_FIELDS:
        raise ProtocolError("layer is not of " + ", ".join(sorted(_LAYER_FIELDS)))
    preload, env = value["preload"], value["env"]
    if not isinstance(preload, list) or not isinstance(env, dict) or len(preload) + len(env) > _MOST_PARTS:
        raise ProtocolError(f"layer.preload is no list, layer.env no object, or both have over {_MOST_PARTS} parts")
    if not all(isinstance(module, str) and _MODULE.fullmatch(module) for module in preload):
        raise ProtocolError("layer.preload has something else than names of modules")
    if not all(_VARIABLE.fullmatch(name) and isinstance(text, str) and "\0" not in text for name, text in env.items()):
        raise ProtocolError("layer.env has something else than variables")
    root, changes_root = text_of(value, "root", _ROOT), value["changes_root"]
    if not isinstance(changes_root, bool) or (changes_root and (not root or value["folder"])):
        raise ProtocolError("layer.changes_root is neither true nor false, or true without a root alone")
    return Layer(
        text_of(value, "base", _NO_TEMPLATE if root else _TEMPLATE),
        text_of(value, "folder", _LAYER),
        tuple(preload),
        env,
        text_of(value, "under", _LAYER),
        root,
        text_of(value, "interpreter", _INSIDE),
        text_of(value, "begins_in", _INSIDE),
        changes_root,
        None if value["limits"] is None else _limits(value),
    )


def _limits(message: Mapping[str, Any]) -> Limits:
    value = message.get("limits")
    names = set(Limits.__slots__)
    if not isinstance(value, dict) or set(value) != names:
        raise ProtocolError("limits are not " + ", ".join(sorted(names)))
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < LARGEST:
            raise ProtocolError(f"limits.{name} is not a positive whole number")
    return Limits(**value)


_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], Request]] = {
    "hello": lambda _message: Hello(),
    "create": lambda message: Create(
        _environment_id(message),
        _isolation(message),
        text_of(message, "template", _TEMPLATE),
        _limits(message),
        _lifetime(message),
        _layer(message),
    ),
    "mount_volumes": lambda message: MountVolumes(_environment_id(message), parse_mounts(message)),
    "copy_files": lambda message: parse_copy(message, _ENVIRONMENT_ID),
    "pack_files": lambda message: parse_packing(PackFiles, message, _ENVIRONMENT_ID),
    "unpack_files": lambda message: parse_packing(UnpackFiles, message, _ENVIRONMENT_ID),
    "make_volume": lambda message: MakeVolume(parse_volume(message), count_of(message, "size_bytes", 1)),
    "remove_volume": lambda message: RemoveVolume(parse_volume(message)),
    "measure_volumes": lambda message: MeasureVolumes(parse_volumes(message)),
    "adopt": lambda message: Adopt(_environment_id(message)),
    "add_slot": lambda message: AddSlot(_environment_id(message), _flag(message, "apart")),
    "keep": _keep,
    "let_go": lambda message: LetGo(_environment_id(message), text_of(message, "tag", _TAG)),
    "hold": lambda message: Hold(_lifetime(message)),
    "destroy": lambda message: Destroy(_environment_id(message)),
    "extend": lambda message: Extend(_environment_id(message), _lifetime(message)),
    "freeze": lambda message: Freeze(_environment_id(message), _flag(message, "but_apart")),
    "thaw": lambda message: Thaw(_environment_id(message)),
    "usage": lambda message: Usage(_environment_id(message), _flag(message, "looks_inside")),
    "listen": lambda message: Listen(_environment_id(message)),
    "unlisten": lambda message: Unlisten(_environment_id(message)),
    "dial": lambda message: Dial(_environment_id(message), _port(message), _family(message)),
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
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < LARGEST:
        raise ProtocolError("number is not a whole number")
    parser = _PARSERS.get(verb, _no_verb) if isinstance(verb, str) else _no_verb
    try:
        return number, parser(message)
    except ProtocolError as error:
        error.number = number
        raise


def _no_verb(_message: Mapping[str, Any]) -> Request:
    raise ProtocolError("the verb is not one of " + ", ".join(_PARSERS))


def list_in_parts(names: Sequence[str]) -> list[dict[str, Any]]:
    """The answers to ``list``, because a datagram holds some hundreds of ids: the last one is without more."""
    parts = [names[start : start + _IDS_IN_A_PART] for start in range(0, len(names), _IDS_IN_A_PART)] or [[]]
    return [{"environment_ids": part, "more": place + 1 < len(parts)} for place, part in enumerate(parts)]


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as one datagram."""
    return json.dumps(message, separators=(",", ":")).encode()
