"""Limits of requests."""

from sandgate.config.groups.row import Group, setting


class RequestSettings(Group):
    """Limits of requests."""

    max_body_bytes: int = setting(2 * 1024 * 1024, "Largest request body.", unit="bytes", ge=1024)
    max_code_bytes: int = setting(1024 * 1024, "Largest piece of code.", unit="bytes", ge=1)
    max_execution_input_bytes: int = setting(
        1024 * 1024, "`stdin`, `env`, `args` and `files` of one execution together.", unit="bytes", ge=1
    )
    max_execution_files: int = setting(64, "Files that come with one execution.", ge=0, le=10_000)
    requests_per_s: int = setting(
        5000,
        "Requests a second of one user, as many at once, on this server; further ones are answered 429.",
        ge=1,
        le=1_000_000,
    )
    head_timeout_s: float = setting(10.0, "How long a client may take to send a request's head.", unit="s", gt=0)
    body_timeout_s: float = setting(30.0, "How long a client may take to send a request's body.", unit="s", gt=0)
    max_connections: int = setting(
        1000, "Connections served at once, on this server; further ones are answered 503.", ge=1
    )
    max_connections_per_address: int = setting(
        500,
        "Connections of one address (IPv6: of its /64) served at once, on this server; trusted proxies may have more.",
        ge=1,
    )
    max_requests_at_once_per_user: int = setting(
        600, "Requests of one user that are being served at once, on this server; further ones are answered 429.", ge=1
    )
    max_unread_answer_bytes_per_user: int = setting(
        64 * 1024**2,
        "Answers longer than 64 KiB to one user that have not been read yet, on this server; further requests are then "
        "answered 429.",
        unit="bytes",
        ge=1024**2,
    )
    max_unread_answer_bytes: int = setting(
        256 * 1024**2,
        "The same of all users, on this server; beyond it those are answered 429 who have left something unread.",
        unit="bytes",
        ge=1024**2,
    )
    unread_answer_timeout_s: float = setting(
        120.0, "A client that reads nothing of its answer for so long is cut off.", unit="s", gt=0
    )
    idempotency_retention_s: int = setting(86_400, "How long an `Idempotency-Key` is remembered.", unit="s", ge=60)
