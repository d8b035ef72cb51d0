"""Lines of the log about connections of environments, which outlive the environment, the proxy and the server."""

from collections.abc import Mapping
from typing import Any

from sandgate.telemetry.log import get_logger

_log = get_logger(__name__)
_CONNECTION = ("host", "port", "verdict", "reason", "sent_bytes", "received_bytes", "duration_ms")
_TOTALS = ("allowed", "denied", "failed", "sent_bytes", "received_bytes")


def log_note(note: Mapping[str, Any]) -> None:
    """Write what the proxy has said of a connection, or of all that an environment had."""
    about = {name: note[name] for name in ("environment_id", "user_id", "left_out")}
    if "totals" in note:
        _log.info("network of an environment closed", **about, **_only(note["totals"], _TOTALS))
    else:
        _log.info("connection of an environment ended", **about, **_only(note["connection"], _CONNECTION))


def _only(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names}
