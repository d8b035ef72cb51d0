"""Where state is kept, and for how long."""

from pydantic import SecretStr

from sandgate.config.groups.row import Group, setting


class DatabaseSettings(Group):
    """Where state is kept, and for how long."""

    database_url: SecretStr = setting(
        SecretStr(""), "`postgresql://…` to keep state in PostgreSQL. Empty: SQLite in the state folder."
    )
    database_migrate: bool = setting(True, "Bring the database's schema to the newest version at the start.")
    database_read_threads: int = setting(4, "Connections that serve reads.", ge=1, le=64)
    database_timeout_s: float = setting(
        30.0,
        "How long the database may take to answer before whoever waits is answered 503. At the default a lock is "
        "waited for 5 s, and a statement of PostgreSQL may take 15 s; with less time both have less, in proportion.",
        unit="s",
        ge=1,
        le=30,
    )
    server_lease_s: float = setting(
        60.0,
        "How long a server that gives no sign of life is believed to live by other servers on the same database; then "
        "they end its environments as `failed`, and give back the idempotency keys of what it was asked.",
        unit="s",
        ge=2,
        le=3600,
    )
    max_kept_output_bytes_per_user: int = setting(
        2 * 1024**3,
        "Recorded output of one user's executions together; beyond it the oldest executions are removed, in about a "
        "minute.",
        unit="bytes",
        ge=1024**2,
    )
    execution_retention_s: int = setting(
        7 * 86_400, "Records of ended executions are kept for this long.", unit="s", ge=60
    )
