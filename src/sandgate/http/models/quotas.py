"""What clients send and get to read about quotas."""

from typing import Annotated

from pydantic import ConfigDict, Field

from sandgate.core.limits import MIB
from sandgate.core.quota import QuotaReport, UserQuota
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Whole, with_example

_MOST = 10**9
_MOST_MIB = 1 << 20

QUOTA_EXAMPLE = {
    "environments": {"limit": 20, "used": 3, "set": True},
    "memory_mb": {"limit": None, "used": 1536, "set": False},
    "executions_per_day": {"limit": 10_000, "used": 120, "set": True},
    "executions_at_once": {"limit": 512, "used": 0, "set": False},
    "snapshots": {"limit": 100, "used": 2, "set": False},
    "snapshot_mb": {"limit": 10_240, "used": 85, "set": False},
    "volumes": {"limit": 20, "used": 1, "set": False},
    "volume_mb": {"limit": 20480, "used": 1024, "set": False},
    "environment": {"memory_mb": 1024, "cpu": 2.0, "processes": 512, "disk_mb": 2048},
}


class EnvironmentCeilings(Model):
    """The most that a user may ask for with one environment; null: as the server's settings say."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    memory_mb: Annotated[int, Field(ge=32, le=_MOST_MIB), Whole] | None = None
    cpu: Annotated[float, Field(ge=0.05, le=1024, description="In cores.")] | None = None
    processes: Annotated[int, Field(ge=8, le=32_768), Whole] | None = None
    disk_mb: Annotated[int, Field(ge=1, le=_MOST_MIB), Whole] | None = None


class SetQuota(Model):
    """What a user may use; what is null or left out is as the server's settings say."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"environments": 20, "executions_per_day": 10_000}]},
    )

    environments: Annotated[int, Field(ge=0, le=_MOST, description="Live at once."), Whole] | None = None
    memory_mb: Annotated[int, Field(ge=0, le=_MOST, description="Of all live environments together."), Whole] | None = (
        None
    )
    executions_per_day: Annotated[int, Field(ge=0, le=_MOST, description="Days are those of UTC."), Whole] | None = None
    executions_at_once: Annotated[int, Field(ge=0, le=_MOST, description="On one server."), Whole] | None = None
    snapshots: Annotated[int, Field(ge=0, le=_MOST), Whole] | None = None
    snapshot_mb: Annotated[int, Field(ge=0, le=_MOST, description="Of all snapshots together."), Whole] | None = None
    volumes: Annotated[int, Field(ge=0, le=_MOST), Whole] | None = None
    volume_mb: Annotated[int, Field(ge=0, le=_MOST, description="Sizes of all volumes together."), Whole] | None = None
    environment: EnvironmentCeilings | None = None

    def wanted(self) -> UserQuota:
        """For the use case."""
        each = self.environment or EnvironmentCeilings()
        return UserQuota(
            environments=self.environments,
            memory_bytes=_in_bytes(self.memory_mb),
            executions_per_day=self.executions_per_day,
            executions_at_once=self.executions_at_once,
            environment_memory_bytes=_in_bytes(each.memory_mb),
            environment_cpu_millis=None if each.cpu is None else round(each.cpu * 1000),
            environment_processes=each.processes,
            environment_disk_bytes=_in_bytes(each.disk_mb),
            snapshots=self.snapshots,
            snapshot_bytes=_in_bytes(self.snapshot_mb),
            volumes=self.volumes,
            volume_bytes=_in_bytes(self.volume_mb),
        )


class Figure(Model):
    """One quota. `set` tells whether an admin has set it for this user; a `limit` of null is no bound."""

    limit: int | None
    used: int
    set: bool


class QuotaParts(Model):
    """What a user may use, and uses."""

    model_config = with_example(QUOTA_EXAMPLE)

    environments: Figure
    memory_mb: Figure
    executions_per_day: Figure
    executions_at_once: Figure
    snapshots: Figure
    snapshot_mb: Figure
    volumes: Figure
    volume_mb: Figure
    environment: EnvironmentCeilings

    @classmethod
    def of(cls, report: QuotaReport) -> "QuotaParts":
        """From the use case."""
        own, allowed, use = report.own, report.allowed, report.use
        millis = allowed.environment_cpu_millis
        return cls(
            environments=_figure(own.environments, allowed.environments, use.environments),
            memory_mb=_figure(own.memory_bytes, _in_mib(allowed.memory_bytes), use.memory_bytes // MIB),
            executions_per_day=_figure(own.executions_per_day, allowed.executions_per_day, use.executions_today),
            executions_at_once=_figure(own.executions_at_once, allowed.executions_at_once, use.executions_at_once),
            snapshots=_figure(own.snapshots, allowed.snapshots, use.snapshots),
            snapshot_mb=_figure(own.snapshot_bytes, _in_mib(allowed.snapshot_bytes), use.snapshot_bytes // MIB),
            volumes=_figure(own.volumes, allowed.volumes, use.volumes),
            volume_mb=_figure(own.volume_bytes, _in_mib(allowed.volume_bytes), use.volume_bytes // MIB),
            # Settings may go beyond what can be asked for, or set for a user.
            environment=EnvironmentCeilings.model_construct(
                memory_mb=_in_mib(allowed.environment_memory_bytes),
                cpu=None if millis is None else millis / 1000,
                processes=allowed.environment_processes,
                disk_mb=_in_mib(allowed.environment_disk_bytes),
            ),
        )


class QuotaAnswer(Model):
    """What a user may use, and uses."""

    model_config = with_example({"user_id": "user-06evrhwp4g000e8v0zrc4v1m6h", "quota": QUOTA_EXAMPLE})

    user_id: str
    quota: QuotaParts


def _figure(own: int | None, limit: int | None, used: int) -> Figure:
    return Figure(limit=limit, used=used, set=own is not None)


def _in_bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * MIB


def _in_mib(size: int | None) -> int | None:
    return None if size is None else size // MIB
