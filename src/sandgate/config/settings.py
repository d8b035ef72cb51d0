"""The settings table: name, type, unit, default, help and secrecy of everything that can be set.

Each setting is read once, at the start, from the environment variable ``SANDGATE_<NAME>`` (upper case) or from a
command-line flag that overrides it, and is frozen from then on. ``docs/configuration.md`` is generated from here.

To add a setting: add a field with ``_setting``; run ``scripts/check --write-docs``. To retire one: move its name to
``RETIRED`` with a sentence that says what to use instead; a server that is given it refuses to start with that.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from sandgate.core.addresses import TrustedProxies
from sandgate.core.errors import ConfigurationError
from sandgate.core.limits import Limits

PREFIX = "SANDGATE_"

RETIRED: Mapping[str, str] = {}

CLIENT_VARIABLES = frozenset({"SANDGATE_URL", "SANDGATE_API_KEY", "SANDGATE_TOKEN", "SANDGATE_PROFILE"})
"""What tells the commands that talk to a server which one, and who asks; no settings of a server."""


def _setting(default: Any, help_text: str, *, unit: str = "", **bounds: Any) -> Any:
    """A row of the table; ``bounds`` are pydantic's (ge, le, pattern, …)."""
    return Field(default=default, description=help_text, json_schema_extra={"unit": unit}, **bounds)


def default_state_folder() -> Path:
    """``/var/lib/sandgate`` for root, a folder of the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/sandgate")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "sandgate"


class Settings(BaseModel):
    """Everything that can be set. Durations end in ``_s`` and are seconds; sizes end in ``_bytes``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Server
    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    state: Path = Field(
        default_factory=default_state_folder,
        description="Folder that holds the database, keys and sockets. Made at the first start, readable by its owner "
        "only.",
        json_schema_extra={"unit": "", "default_text": "/var/lib/sandgate as root, ~/.local/share/sandgate otherwise"},
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "How much is logged.")
    log_format: Literal["console", "json"] = _setting("console", "How log lines are written.")
    drain_grace_s: float = _setting(
        5.0, "How long running executions may go on after SIGTERM before they are cancelled.", unit="s", ge=0, le=600
    )
    user: str = _setting(
        "sandgate",
        "System user that the gateway runs as when the server is started by root. Made up of a free "
        "number when there is no such user.",
        pattern=r"^[a-z_][a-z0-9_-]{0,31}$",
    )

    # Database
    database_url: SecretStr = _setting(
        SecretStr(""), "`postgresql://…` to keep state in PostgreSQL. Empty: SQLite in the state folder."
    )
    database_migrate: bool = _setting(True, "Bring the database's schema to the newest version at the start.")
    database_read_threads: int = _setting(4, "Connections that serve reads.", ge=1, le=64)
    server_lease_s: float = _setting(
        60.0,
        "How long a server that gives no sign of life is believed to live by other servers on the same database; then "
        "they end its environments as `failed`, and give back the idempotency keys of what it was asked.",
        unit="s",
        ge=2,
        le=3600,
    )
    execution_retention_s: int = _setting(
        7 * 86_400, "Records of ended executions are kept for this long.", unit="s", ge=60
    )

    # Authentication
    admin_password: SecretStr = _setting(
        SecretStr(""),
        "Password of the first admin, used only when no user exists. Empty: a random one is made and "
        "written to `initial-admin-password` in the state folder, until it is changed.",
    )
    token_lifetime_s: int = _setting(3600, "How long a token is valid.", unit="s", ge=10, le=7 * 86_400)
    login_attempts: int = _setting(
        10,
        "Failed logins of one name from one address that are answered before further ones are slowed down; half as "
        "many again of one name from everywhere, ten times as many from one address.",
        ge=1,
        le=1000,
    )
    login_window_s: float = _setting(60.0, "How long a failed login counts.", unit="s", ge=1, le=86_400)

    audit_retention_s: int = _setting(
        365 * 86_400, "Entries of the audit log are kept for this long.", unit="s", ge=86_400
    )
    audit_executions: bool = _setting(
        True, "Executions that the service carried out have an entry in the audit log; what was refused always has one."
    )

    # Reached from elsewhere
    tls_certificate: Path | None = _setting(
        None, "File with the certificate and those that lead to its root, in PEM. With it, the server speaks TLS only."
    )
    tls_key: Path | None = _setting(
        None, "File with its key, in PEM, without a password. Both files are read again when they change."
    )
    trusted_proxies: str = _setting(
        "",
        "Addresses and networks (`10.1.0.0/16`) of proxies, separated by commas, that are believed about their clients "
        "(`X-Forwarded-For`, `X-Forwarded-Proto`). Nobody else is.",
    )

    # Limits of the API
    max_body_bytes: int = _setting(2 * 1024 * 1024, "Largest request body.", unit="bytes", ge=1024)
    max_code_bytes: int = _setting(1024 * 1024, "Largest piece of code.", unit="bytes", ge=1)
    max_execution_input_bytes: int = _setting(
        1024 * 1024, "`stdin`, `env`, `args` and `files` of one execution together.", unit="bytes", ge=1
    )
    max_execution_files: int = _setting(64, "Files that come with one execution.", ge=0, le=10_000)
    requests_per_s: int = _setting(
        5000, "Requests a second of one user, as many at once; further ones are answered 429.", ge=1, le=1_000_000
    )
    head_timeout_s: float = _setting(10.0, "How long a client may take to send a request's head.", unit="s", gt=0)
    body_timeout_s: float = _setting(30.0, "How long a client may take to send a request's body.", unit="s", gt=0)
    max_connections: int = _setting(1000, "Connections served at once; further ones are answered 503.", ge=1)
    max_connections_per_address: int = _setting(
        500, "Connections of one address (IPv6: of its /64) served at once; trusted proxies may have more.", ge=1
    )
    max_requests_at_once_per_user: int = _setting(
        600, "Requests of one user that are being served at once, on this server; further ones are answered 429.", ge=1
    )
    idempotency_retention_s: int = _setting(86_400, "How long an `Idempotency-Key` is remembered.", unit="s", ge=60)

    # Environments
    max_environments: int = _setting(2000, "Live environments on this server.", ge=1, le=20_000)
    max_environments_per_user: int = _setting(1000, "Live environments of one user.", ge=1)
    max_memory_bytes_per_user: int = _setting(
        0, "Memory of all live environments of one user together. 0: no bound.", unit="bytes", ge=0
    )
    max_executions_per_day_per_user: int = _setting(
        0, "Executions of one user a day, which begins at midnight (UTC). 0: no bound.", ge=0
    )
    max_executions_at_once_per_user: int = _setting(
        512, "Executions of one user that run or wait at once, on this server.", ge=1, le=100_000
    )
    max_execution_bytes_at_once_per_user: int = _setting(
        256 * 1024**2, "Code of those executions, and what comes with it, together.", unit="bytes", ge=1
    )
    default_environment_timeout_s: int = _setting(
        3600, "Lifetime of an environment that asks for none.", unit="s", ge=1, le=86_400
    )
    default_execution_timeout_s: float = _setting(
        30.0, "Time limit of an execution that asks for none.", unit="s", ge=0.1, le=3600
    )
    memory_bytes: int = _setting(512 * 1024**2, "Memory of an environment.", unit="bytes", ge=32 * 1024**2)
    cpu_millis: int = _setting(1000, "CPU of an environment.", unit="thousandths of a core", ge=50)
    processes: int = _setting(64, "Processes and threads of an environment.", ge=8, le=32_768)
    disk_bytes: int = _setting(256 * 1024**2, "Files of an environment.", unit="bytes", ge=1024**2)
    max_environment_memory_bytes: int = _setting(
        2 * 1024**3, "The most memory that may be asked for with an environment.", unit="bytes", ge=32 * 1024**2
    )
    max_environment_cpu_millis: int = _setting(
        2000, "The most CPU that may be asked for with an environment.", unit="thousandths of a core", ge=50
    )
    max_environment_processes: int = _setting(
        512, "The most processes and threads that may be asked for with an environment.", ge=8, le=32_768
    )
    max_environment_disk_bytes: int = _setting(
        2 * 1024**3, "The most files that may be asked for with an environment.", unit="bytes", ge=1024**2
    )
    inodes: int = _setting(65_536, "Number of files of an environment.", ge=256)
    file_size_bytes: int = _setting(256 * 1024**2, "Largest single file.", unit="bytes", ge=1024)
    open_files: int = _setting(1024, "Open files of a process.", ge=64, le=65_536)
    concurrent_executions: int = _setting(16, "Executions side by side in one environment.", ge=1, le=64)
    output_bytes: int = _setting(
        1024**2, "Kept part of stdout, and of stderr, of an execution.", unit="bytes", ge=1024, le=64 * 1024**2
    )
    drained_output_bytes: int = _setting(
        256 * 1024**2,
        "Output beyond the kept part that is read and dropped before the execution is ended with `output_limit`.",
        unit="bytes",
        ge=1024**2,
    )

    max_file_bytes: int = _setting(
        16 * 1024**3, "Largest file that is written to or read from an environment.", unit="bytes", ge=1
    )
    file_operation_timeout_s: float = _setting(
        30.0, "How long an environment may take to do something with its files.", unit="s", ge=0.1, le=600
    )
    file_transfer_timeout_s: float = _setting(
        3600.0, "How long the content of one file may be on its way.", unit="s", ge=1, le=86_400
    )

    # Workflows
    max_runs: int = _setting(1000, "Runs of workflows that are not over, on this server.", ge=1, le=100_000)
    max_run_depth: int = _setting(
        8, "How many runs may be above a run that a step of type `workflow` starts.", ge=1, le=64
    )
    max_steps: int = _setting(32, "Steps of workflows that run code at once, on this server.", ge=1, le=1000)
    max_steps_per_user: int = _setting(
        16,
        "Steps of workflows of one user that run code at once, on this server; more of them wait, and leave the rest "
        "of `max_steps` to others.",
        ge=1,
        le=1000,
    )
    max_http_steps: int = _setting(64, "Steps of type `http` at once, on this server.", ge=1, le=1000)
    max_http_steps_per_user: int = _setting(
        16, "Steps of type `http` of one user at once, on this server; more of them wait.", ge=1, le=1000
    )
    http_step_bytes: int = _setting(
        256 * 1024, "Largest answer to a step of type `http`.", unit="bytes", ge=1024, le=256 * 1024
    )
    workspace_idle_s: float = _setting(
        86_400.0,
        "How long the workspace that the steps of a run share is kept while none of them runs in it.",
        unit="s",
        ge=1,
        le=31 * 86_400,
    )
    http_step_allow: str = _setting(
        "",
        "Networks (`10.1.0.0/16`) and names of hosts, separated by commas, that steps of type `http` may reach though "
        "their addresses are private or otherwise special.",
    )
    run_lease_s: float = _setting(
        10.0,
        "How long a run stays with a server that gives no sign of life before another server on the same database "
        "takes it over.",
        unit="s",
        ge=2,
        le=300,
    )
    run_retention_s: int = _setting(
        30 * 86_400,
        "Ended runs are kept for this long, with their steps and history; deleted workflows and ended environments as "
        "well.",
        unit="s",
        ge=60,
    )

    # Event streams
    max_streams: int = _setting(500, "Event streams that are open at once, on this server.", ge=1, le=100_000)
    max_streams_per_user: int = _setting(50, "Event streams that one user has open at once, on this server.", ge=1)
    max_streamed_output_bytes: int = _setting(
        1024**3,
        "Output of a streamed or detached execution, of each stream and beyond the kept part, before it is ended with "
        "`output_limit`.",
        unit="bytes",
        ge=1024**2,
    )
    stream_window_bytes: int = _setting(
        1024**2,
        "How much of the newest output beyond the kept part is held for those who follow an execution.",
        unit="bytes",
        ge=65_536,
        le=64 * 1024**2,
    )
    stream_heartbeat_s: float = _setting(
        15.0, "How often an event stream without events says that it is alive.", unit="s", ge=0.1, le=3600
    )
    stream_lifetime_s: float = _setting(
        3600.0,
        "How long an event stream stays open before its client has to ask again, with a credential that is still "
        "valid.",
        unit="s",
        gt=0,
    )
    max_triggers_per_user: int = _setting(100, "Schedules of one user, and webhooks of one user.", ge=1, le=100_000)
    webhook_max_body_bytes: int = _setting(
        256 * 1024, "Largest body that a webhook takes.", unit="bytes", ge=1024, le=1024**2
    )
    webhook_rate_per_minute: int = _setting(
        120, "Requests that one webhook takes in a minute; further ones are answered 429.", ge=1, le=100_000
    )

    max_secrets_per_user: int = _setting(100, "Secrets of one user.", ge=1, le=10_000)
    max_artifact_bytes: int = _setting(64 * 1024**2, "Largest artifact.", unit="bytes", ge=1)
    max_step_artifacts: int = _setting(1000, "Artifacts of one attempt of a step.", ge=1, le=10_000)
    max_step_artifact_bytes: int = _setting(
        128 * 1024**2, "All artifacts of one attempt of a step together.", unit="bytes", ge=1
    )
    max_run_artifacts: int = _setting(10_000, "Artifacts of one run.", ge=1, le=1_000_000)
    max_run_artifact_bytes: int = _setting(1024**3, "All artifacts of one run together.", unit="bytes", ge=1)
    artifact_retention_s: int = _setting(
        7 * 86_400, "Artifacts are kept for this long, unless their run goes before.", unit="s", ge=60
    )

    # Sandboxes
    allow_weak_isolation: bool = _setting(
        False,
        "Serve the `process` class, which keeps hostile code apart from nothing, where the machine cannot hold "
        "the `standard` class.",
    )
    isolation: Literal["standard", "gvisor", "process"] = _setting(
        "standard",
        "Class of new environments that ask for none, and of workflows' steps. `gvisor` needs `runsc`, `process` needs "
        "`allow_weak_isolation`.",
    )
    gvisor_templates: str = _setting(
        "", "Templates, separated by commas, whose environments are of the `gvisor` class when they ask for none."
    )
    runsc: str = _setting("", "The program `runsc` for the `gvisor` class. Empty: the one on the path of programs.")
    gvisor_platform: Literal["auto", "systrap", "ptrace"] = _setting(
        "auto",
        "What gVisor's kernel runs programs with. `auto` takes `systrap` where `runsc` has it, otherwise `ptrace`; "
        "`sandgate doctor` tries it.",
    )
    gvisor_spare_sandboxes: int = _setting(
        2,
        "Sandboxes of the `gvisor` class that are made before they are asked for, of each template that has been asked "
        "for in that class; 0 makes none. Each holds some 40 MB of memory.",
        ge=0,
        le=100,
    )
    interpreters: str = _setting("", "Folders to look for interpreters in before all others, separated by colons.")
    host_id_base: int = _setting(
        0,
        "First of the 65,536 user ids of the host that the server and its sandboxes run as; no account may have one of "
        "them. 0: a block above 1,879,048,192 that is chosen by the path of the state folder, so that servers side by "
        "side share none.",
        ge=0,
        le=4_000_000_000,
    )
    spare_sandboxes: int = _setting(
        16, "Sandboxes of each template in use that are made before they are asked for; 0 makes none.", ge=0, le=1000
    )
    most_spare_sandboxes: int = _setting(
        64, "The most of them after many were asked for at once; fewer again when it has been quiet.", ge=0, le=1000
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, text: str) -> str:
        TrustedProxies.parse(text)
        return text

    @model_validator(mode="after")
    def _check_tls(self) -> "Settings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self

    def limits(self) -> Limits:
        """The default ceilings of an environment."""
        return Limits(
            memory_bytes=self.memory_bytes,
            cpu_millis=self.cpu_millis,
            processes=self.processes,
            disk_bytes=self.disk_bytes,
            inodes=self.inodes,
            file_size_bytes=self.file_size_bytes,
            open_files=self.open_files,
            concurrent_executions=self.concurrent_executions,
            output_bytes=self.output_bytes,
            drained_output_bytes=self.drained_output_bytes,
        )


def read_settings(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """The table filled from ``environ`` and, stronger, from ``overrides`` (setting names, None: not given).

    Raises ``ConfigurationError`` that names every unknown, retired and ill-formed setting at once.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in RETIRED:
            problems.append(f"{variable} is no longer a setting: {RETIRED[name]}")
        elif name not in Settings.model_fields:
            problems.append(f"{variable} is not a setting; docs/configuration.md lists them all")
        else:
            values[name] = value
    values.update({name: value for name, value in (overrides or {}).items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [
            f"{PREFIX}{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("The settings are not valid: " + "; ".join(problems)) from None
    if problems:
        raise ConfigurationError("The settings are not valid: " + "; ".join(problems))
    return settings
