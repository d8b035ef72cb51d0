"""What one user may use of a server. A limit is about one environment, a quota about all that a user has."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class UserQuota:
    """What an admin has set for a user; None leaves it as the server's settings have it.

    The figures that begin with ``environment_`` are the most that a user may ask for with one environment.
    """

    environments: int | None = None
    memory_bytes: int | None = None
    executions_per_day: int | None = None
    executions_at_once: int | None = None
    environment_memory_bytes: int | None = None
    environment_cpu_millis: int | None = None
    environment_processes: int | None = None
    environment_disk_bytes: int | None = None

    def over(self, defaults: "UserQuota") -> "UserQuota":
        """With the defaults where nothing was set."""
        names = [field.name for field in fields(self)]
        own = {name: getattr(self, name) for name in names}
        return UserQuota(**{name: getattr(defaults, name) if own[name] is None else own[name] for name in names})


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of it a user uses now, and has used since midnight (UTC)."""

    environments: int
    memory_bytes: int
    executions_today: int
    executions_at_once: int


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """What was set for a user, what holds, and what is used. A figure that is None in ``allowed`` has no bound."""

    own: UserQuota
    allowed: UserQuota
    use: QuotaUse
