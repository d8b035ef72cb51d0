"""A store that breaks where a test says: every durable write has two named points, before it and after it.

``fail`` belongs before a write, when nothing has been done, and ``unknown`` after it. A change of a run has a point
for each kind of event that it adds to the run's history, so that every step of a run's life can be hit by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from sandgate.store.base import (
    ArtifactStore,
    AuditStore,
    CredentialStore,
    EnvironmentStore,
    ExecutionStore,
    IdempotencyStore,
    QuotaStore,
    RetentionStore,
    RunChange,
    RunNotes,
    RunStore,
    ScheduleStore,
    SecretStore,
    ServerStore,
    SignalStore,
    SnapshotStore,
    Store,
    TemplateStore,
    UserStore,
    VolumeStore,
    WebhookStore,
    WorkflowStore,
)
from sandgate.testing.faults import Faults, reach

PARTS = (
    "environments",
    "executions",
    "users",
    "credentials",
    "idempotency",
    "workflows",
    "runs",
    "schedules",
    "webhooks",
    "signals",
    "notes",
    "retention",
    "secrets",
    "artifacts",
    "servers",
    "audit",
    "quotas",
    "snapshots",
    "volumes",
    "templates",
)

# What a change of a run may add to its history; what the insert of one adds is at the point of the insert.
RUN_EVENTS = (
    "step_started",
    "step_waiting",
    "step_succeeded",
    "step_failed",
    "step_cancelled",
    "step_timed_out",
    "step_skipped",
    "attempt_failed",
    "cancel_asked",
    "run_timed_out",
    "run_succeeded",
    "run_failed",
    "run_cancelled",
)
NO_EVENT = "nothing"


def _apply_points(arguments: tuple[Any, ...], _named: Mapping[str, Any]) -> list[str]:
    change: RunChange = arguments[0]
    kinds = dict.fromkeys(event.kind for event in change.history)
    return [f"runs.apply.{kind}" for kind in kinds] or [f"runs.apply.{NO_EVENT}"]


def _claim_points(_arguments: tuple[Any, ...], named: Mapping[str, Any]) -> list[str]:
    return ["runs.claim.own" if named.get("own") else "runs.claim.free"]


def _transition_points(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> list[str]:
    return [f"environments.transition.{named.get('target') or arguments[1]}"]


Points = Callable[[tuple[Any, ...], Mapping[str, Any]], list[str]]

# Writes with several points; every other one has the point of its own name.
_BY_CONTENT: Mapping[str, Points] = {
    "runs.apply": _apply_points,
    "runs.claim": _claim_points,
    "environments.transition": _transition_points,
}

# Every method of the stores' protocols that writes, with the points that it may pass.
WRITES: Mapping[str, tuple[str, ...]] = {
    "environments.insert": ("environments.insert",),
    "environments.update_details": ("environments.update_details",),
    "environments.note_running": ("environments.note_running",),
    "environments.write_pause": ("environments.write_pause",),
    "environments.transition": tuple(
        f"environments.transition.{status}" for status in ("terminated", "failed", "expired")
    ),
    "executions.insert_running": ("executions.insert_running",),
    "executions.finish": ("executions.finish",),
    "executions.mark_lost": ("executions.mark_lost",),
    "executions.prune": ("executions.prune",),
    "executions.prune_oldest": ("executions.prune_oldest",),
    "users.insert": ("users.insert",),
    "users.update": ("users.update",),
    "users.delete": ("users.delete",),
    "credentials.insert_api_key": ("credentials.insert_api_key",),
    "credentials.touch_api_key": ("credentials.touch_api_key",),
    "credentials.delete_api_key": ("credentials.delete_api_key",),
    "credentials.revoke_token": ("credentials.revoke_token",),
    "credentials.prune_revoked": ("credentials.prune_revoked",),
    "idempotency.claim": ("idempotency.claim",),
    "idempotency.save": ("idempotency.save",),
    "idempotency.release": ("idempotency.release",),
    "idempotency.release_unanswered": ("idempotency.release_unanswered",),
    "idempotency.prune": ("idempotency.prune",),
    "workflows.insert": ("workflows.insert",),
    "workflows.replace": ("workflows.replace",),
    "workflows.delete": ("workflows.delete",),
    "runs.insert": ("runs.insert",),
    "runs.apply": tuple(f"runs.apply.{kind}" for kind in (*RUN_EVENTS, NO_EVENT)),
    "runs.claim": ("runs.claim.own", "runs.claim.free"),
    "runs.renew": ("runs.renew",),
    "runs.release": ("runs.release",),
    "runs.reopen": ("runs.reopen",),
    "runs.enter": ("runs.enter",),
    "schedules.insert": ("schedules.insert",),
    "schedules.replace": ("schedules.replace",),
    "schedules.fire": ("schedules.fire",),
    "schedules.delete": ("schedules.delete",),
    "webhooks.insert": ("webhooks.insert",),
    "webhooks.replace": ("webhooks.replace",),
    "webhooks.accept": ("webhooks.accept",),
    "webhooks.note": ("webhooks.note",),
    "webhooks.delete": ("webhooks.delete",),
    "signals.insert": ("signals.insert",),
    "secrets.put": ("secrets.put",),
    "secrets.delete": ("secrets.delete",),
    "artifacts.prune": ("artifacts.prune",),
    "artifacts.prune_oldest": ("artifacts.prune_oldest",),
    "artifacts.delete_of_runs": ("artifacts.delete_of_runs",),
    "retention.prune_runs": ("retention.prune_runs",),
    "retention.prune_workflows": ("retention.prune_workflows",),
    "retention.prune_versions": ("retention.prune_versions",),
    "retention.prune_oldest_runs": ("retention.prune_oldest_runs",),
    "retention.prune_environments": ("retention.prune_environments",),
    "servers.join": ("servers.join",),
    "servers.renew": ("servers.renew",),
    "servers.bury": ("servers.bury",),
    "servers.leave": ("servers.leave",),
    "audit.append": ("audit.append",),
    "audit.prune": ("audit.prune",),
    "quotas.put": ("quotas.put",),
    "quotas.delete": ("quotas.delete",),
    "quotas.add_executions": ("quotas.add_executions",),
    "snapshots.insert": ("snapshots.insert",),
    "snapshots.delete": ("snapshots.delete",),
    "snapshots.prune": ("snapshots.prune",),
    "volumes.insert": ("volumes.insert",),
    "volumes.begin_delete": ("volumes.begin_delete",),
    "volumes.delete": ("volumes.delete",),
    "templates.insert": ("templates.insert",),
    "templates.finish": ("templates.finish",),
    "templates.delete": ("templates.delete",),
}

# Every other one.
READS = frozenset(
    {
        "environments.find",
        "environments.list",
        "environments.list_live",
        "environments.count_live",
        "environments.held_elsewhere",
        "executions.find",
        "executions.list",
        "executions.find_over",
        "retention.find_over",
        "artifacts.find_over",
        "users.find",
        "users.find_by_name",
        "users.list",
        "users.count",
        "credentials.find_api_key",
        "credentials.list_api_keys",
        "credentials.is_revoked",
        "idempotency.find",
        "servers.list_dead",
        "workflows.find",
        "workflows.find_definition",
        "workflows.list",
        "runs.find",
        "runs.find_newest",
        "runs.list",
        "runs.list_live",
        "runs.list_held",
        "runs.list_steps",
        "runs.show_steps",
        "runs.measure_printed",
        "runs.list_history",
        "runs.find_free_in_s",
        "runs.find_step",
        "runs.find_beginning",
        "schedules.find",
        "schedules.list",
        "schedules.list_due",
        "schedules.find_next_due",
        "schedules.list_live_runs",
        "webhooks.find",
        "webhooks.find_by_token",
        "webhooks.list",
        "webhooks.list_deliveries",
        "signals.list_held",
        "signals.exists",
        "notes.listen",
        "secrets.find",
        "secrets.list",
        "artifacts.find",
        "artifacts.list",
        "artifacts.measure",
        "artifacts.find_orphans",
        "audit.list",
        "audit.read",
        "audit.find_head",
        "quotas.find",
        "quotas.count_executions",
        "snapshots.find",
        "snapshots.list",
        "snapshots.measure",
        "snapshots.count_of",
        "snapshots.find_orphans",
        "volumes.find",
        "volumes.find_named",
        "volumes.list",
        "volumes.held",
        "volumes.find_users",
        "volumes.list_condemned",
        "templates.list",
        "templates.list_ids",
        "templates.count_runs",
    }
)

FAULT_POINTS = tuple(
    f"{point}.{side}" for points in WRITES.values() for point in points for side in ("before", "after")
)
"""Every boundary of a durable write, by name."""


class _FaultyPart:
    """One store of the whole, with faults around its writes."""

    def __init__(self, name: str, part: object, faults: Faults) -> None:
        self._name = name
        self._part = part
        self._faults = faults

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._part, method)
        write = f"{self._name}.{method}"
        if write in READS or not callable(inner):
            return inner
        named_by = _BY_CONTENT.get(write)

        async def call(*arguments: Any, **named: Any) -> Any:
            points = [write] if named_by is None else named_by(arguments, named)
            unknown = [point for point in points if point not in WRITES[write]]
            assert not unknown, f"Give these points a name in WRITES: {unknown}"  # noqa: S101 - a hook of tests
            await reach(self._faults, [f"{point}.before" for point in points])
            answer = await inner(*arguments, **named)
            await reach(self._faults, [f"{point}.after" for point in points])
            return answer

        return call


class FaultyStore:
    """``Store`` around another one, with faults."""

    environments: EnvironmentStore
    executions: ExecutionStore
    users: UserStore
    credentials: CredentialStore
    idempotency: IdempotencyStore
    workflows: WorkflowStore
    runs: RunStore
    schedules: ScheduleStore
    webhooks: WebhookStore
    servers: ServerStore
    signals: SignalStore
    notes: RunNotes
    retention: RetentionStore
    secrets: SecretStore
    artifacts: ArtifactStore
    audit: AuditStore
    quotas: QuotaStore
    snapshots: SnapshotStore
    volumes: VolumeStore
    templates: TemplateStore

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        for name in PARTS:
            setattr(self, name, cast(Any, _FaultyPart(name, getattr(store, name), faults)))

    async def open(self) -> None:
        """See ``Store``."""
        await self._store.open()

    async def check(self) -> None:
        """See ``Store``."""
        await self._store.check()

    async def identity(self) -> str:
        """See ``Store``."""
        return await self._store.identity()

    async def close(self) -> None:
        """See ``Store``."""
        await self._store.close()
