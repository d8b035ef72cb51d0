"""What one user may use of a server. A limit is about one environment, a quota about all that a user has."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class EnvironmentsHeld:
    """How many live environments somebody has, and the memory that they may use together, files included."""

    count: int = 0
    memory_bytes: int = 0

    def plus(self, other: "EnvironmentsHeld") -> "EnvironmentsHeld":
        """Both together."""
        return EnvironmentsHeld(self.count + other.count, self.memory_bytes + other.memory_bytes)


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
    snapshots: int | None = None
    snapshot_bytes: int | None = None
    volumes: int | None = None
    volume_bytes: int | None = None

    def over(self, defaults: "UserQuota") -> "UserQuota":
        """With the defaults where nothing was set."""
        names = [field.name for field in fields(self)]
        own = {name: getattr(self, name) for name in names}
        return UserQuota(**{name: getattr(defaults, name) if own[name] is None else own[name] for name in names})

    def has_place(self, held: EnvironmentsHeld) -> bool:
        """Whether who has these may have one environment more."""
        return self.environments is None or held.count < self.environments

    def has_memory(self, held: EnvironmentsHeld, asked_bytes: int) -> bool:
        """Whether who has these may have one with so much memory besides."""
        return self.memory_bytes is None or held.memory_bytes + asked_bytes <= self.memory_bytes


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of it a user uses now, and has used since midnight (UTC)."""

    environments: int
    memory_bytes: int
    executions_today: int
    executions_at_once: int
    snapshots: int = 0
    snapshot_bytes: int = 0
    volumes: int = 0
    volume_bytes: int = 0


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """What was set for a user, what holds, and what is used. A figure that is None in ``allowed`` has no bound."""

    own: UserQuota
    allowed: UserQuota
    use: QuotaUse
