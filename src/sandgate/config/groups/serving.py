"""Where the server listens, as whom, and what it writes."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from sandgate.config.groups.row import Group, setting


def default_state_folder() -> Path:
    """``/var/lib/sandgate`` for root, a folder of the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/sandgate")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "sandgate"


class ServingSettings(Group):
    """Where the server listens, as whom, and what it writes."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    state: Path = Field(
        default_factory=default_state_folder,
        description="Folder that holds the database, keys and sockets. Made at the first start, readable by its owner "
        "only.",
        json_schema_extra={"unit": "", "default_text": "/var/lib/sandgate as root, ~/.local/share/sandgate otherwise"},
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "How much is logged.")
    log_format: Literal["console", "json"] = setting("console", "How log lines are written.")
    drain_grace_s: float = setting(
        5.0, "How long running executions may go on after SIGTERM before they are cancelled.", unit="s", ge=0, le=600
    )
    user: str = setting(
        "sandgate",
        "System user that the gateway runs as when the server is started by root. Made up of a free "
        "number when there is no such user.",
        pattern=r"^[a-z_][a-z0-9_-]{0,31}$",
    )
