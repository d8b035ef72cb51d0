"""Event streams."""

from sandgate.config.groups.row import Group, setting


class StreamSettings(Group):
    """Event streams."""

    max_streams: int = setting(500, "Event streams that are open at once, on this server.", ge=1, le=100_000)
    max_streams_per_user: int = setting(50, "Event streams that one user has open at once, on this server.", ge=1)
    max_streamed_output_bytes: int = setting(
        1024**3,
        "Output of a streamed or detached execution, of each stream and beyond the kept part, before it is ended with "
        "`output_limit`.",
        unit="bytes",
        ge=1024**2,
    )
    stream_window_bytes: int = setting(
        1024**2,
        "How much of the newest output beyond the kept part is held for those who follow an execution.",
        unit="bytes",
        ge=65_536,
        le=64 * 1024**2,
    )
    stream_heartbeat_s: float = setting(
        15.0, "How often an event stream without events says that it is alive.", unit="s", ge=0.1, le=3600
    )
    stream_lifetime_s: float = setting(
        3600.0,
        "How long an event stream stays open before its client has to ask again, with a credential that is still "
        "valid.",
        unit="s",
        gt=0,
    )
