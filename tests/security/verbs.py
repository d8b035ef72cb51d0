"""A whole request of each verb of the launcher, for whoever spoils one."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import protocol

NAME, OTHER, VOLUME = "env-fuzz000000000000", "env-fuzz000000000001", "vol-fuzz000000000000"
_MOUNT = {"volume": VOLUME, "size_bytes": 16 << 20, "path": "/data", "read_only": False}
_FIELDS: Mapping[str, Any] = {
    "number": 1,
    "environment_id": NAME,
    "isolation": Isolation.STANDARD.value,
    "template": "python-3.9",
    "limits": asdict(Limits()),
    "lifetime_s": 5,
    "tag": "t",
    "slot": 0,
    "child": 1,
    "kills": 0,
    "source": OTHER,
    "tops": ["workspace", "var/tmp"],
    "most_entries": 1000,
    "within_s": 20,
    "most_bytes": 1 << 20,
    "volume": VOLUME,
    "size_bytes": 16 << 20,
    "volumes": [_MOUNT],
    "port": 8000,
    "family": 4,
}
_OTHERWISE: Mapping[str, Mapping[str, Any]] = {"measure_volumes": {"volumes": [VOLUME]}}
VERBS = tuple(protocol._PARSERS)


def whole(verb: str) -> dict[str, Any]:
    """One that is in order, with fields of other verbs beside its own."""
    return {"verb": verb, **_FIELDS, **_OTHERWISE.get(verb, {})}


def is_about_a_sandbox(verb: str) -> bool:
    """Whether the launcher looks for a sandbox by name when it is asked this."""
    _number, request = protocol.parse_request(protocol.pack(whole(verb)))
    return hasattr(request, "environment_id")


ABOUT_SANDBOXES = tuple(filter(is_about_a_sandbox, VERBS))
