"""What the use cases need from a database.

Every write is durable when its coroutine returns (group commit: writes that arrive together share one
transaction and one flush). Every method may raise ``StoreUnavailable``; with ``details["outcome"] == "unknown"`` the
write may have been done. A cancelled caller may find its write done all the same.
"""

from typing import Protocol

from sandgate.core.account_stores import CredentialStore, UserStore
from sandgate.store.base.artifacts import ArtifactStore, Kept, Pack, PackedFile, PackFolder, PackSink
from sandgate.store.base.audit import AuditFilter, AuditStore
from sandgate.store.base.environments import EnvironmentFilter, EnvironmentStore, ExecutionStore
from sandgate.store.base.idempotency import IdempotencyStore, SavedAnswer
from sandgate.store.base.quotas import QuotaStore
from sandgate.store.base.retention import RetentionStore
from sandgate.store.base.secrets import SecretStore
from sandgate.store.base.servers import Remains, ServerStore
from sandgate.store.base.signals import NoteKind, RunNote, RunNotes, SignalStore
from sandgate.store.base.snapshots import SnapshotFolder, SnapshotSink, SnapshotStore
from sandgate.store.base.templates import TemplateRefusal, TemplateStore
from sandgate.store.base.triggers import DeliveryKeys, ScheduleStore, WebhookStore
from sandgate.store.base.volumes import VolumeRefusal, VolumesHeld, VolumeStore
from sandgate.store.base.workflows import RunChange, RunFilter, RunStore, ShownSteps, VersionGone, WorkflowStore

__all__ = [
    "ArtifactStore",
    "AuditFilter",
    "AuditStore",
    "CredentialStore",
    "DeliveryKeys",
    "EnvironmentFilter",
    "EnvironmentStore",
    "ExecutionStore",
    "IdempotencyStore",
    "Kept",
    "NoteKind",
    "Pack",
    "PackFolder",
    "PackSink",
    "PackedFile",
    "QuotaStore",
    "Remains",
    "RetentionStore",
    "RunChange",
    "RunFilter",
    "RunNote",
    "RunNotes",
    "RunStore",
    "SavedAnswer",
    "ScheduleStore",
    "SecretStore",
    "ServerStore",
    "ShownSteps",
    "SignalStore",
    "SnapshotFolder",
    "SnapshotSink",
    "SnapshotStore",
    "Store",
    "TemplateRefusal",
    "TemplateStore",
    "UserStore",
    "VersionGone",
    "VolumeRefusal",
    "VolumeStore",
    "VolumesHeld",
    "WebhookStore",
    "WorkflowStore",
]


class Store(Protocol):
    """The whole database."""

    environments: EnvironmentStore
    executions: ExecutionStore
    users: UserStore
    credentials: CredentialStore
    idempotency: IdempotencyStore
    workflows: WorkflowStore
    runs: RunStore
    signals: SignalStore
    notes: RunNotes
    retention: RetentionStore
    secrets: SecretStore
    artifacts: ArtifactStore
    schedules: ScheduleStore
    webhooks: WebhookStore
    servers: ServerStore
    audit: AuditStore
    quotas: QuotaStore
    snapshots: SnapshotStore
    volumes: VolumeStore
    templates: TemplateStore

    async def open(self) -> None:
        """Connect, and bring the schema to the newest version unless the settings forbid it."""
        ...

    async def check(self) -> None:
        """Prove that the database answers and accepts writes; raises ``StoreUnavailable``."""
        ...

    async def identity(self) -> str:
        """What no other database has, and this one always."""
        ...

    async def close(self) -> None:
        """Finish the writes that were accepted and disconnect."""
        ...
