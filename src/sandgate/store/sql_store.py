"""The store on SQLite or PostgreSQL."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.store.artifacts import SqlArtifactStore
from sandgate.store.audit import SqlAuditStore
from sandgate.store.base import (
    ArtifactStore,
    AuditStore,
    CredentialStore,
    EnvironmentStore,
    ExecutionStore,
    IdempotencyStore,
    QuotaStore,
    RetentionStore,
    RunNotes,
    RunStore,
    ScheduleStore,
    SecretStore,
    ServerStore,
    SignalStore,
    SnapshotStore,
    TemplateStore,
    UserStore,
    VolumeStore,
    WebhookStore,
    WorkflowStore,
)
from sandgate.store.connections import DEADLINE_S, Location
from sandgate.store.credentials import SqlCredentialStore
from sandgate.store.database import Database
from sandgate.store.environments import SqlEnvironmentStore
from sandgate.store.executions import SqlExecutionStore
from sandgate.store.idempotency import SqlIdempotencyStore
from sandgate.store.identity_schema import database_identity
from sandgate.store.notes import SqlRunNotes
from sandgate.store.quotas import SqlQuotaStore
from sandgate.store.retention import SqlRetentionStore
from sandgate.store.revisions import ensure_schema
from sandgate.store.runs import SqlRunStore
from sandgate.store.schedules import SqlScheduleStore
from sandgate.store.schema import write_probe
from sandgate.store.secrets import SqlSecretStore
from sandgate.store.servers import SqlServerStore
from sandgate.store.signals import SqlSignalStore
from sandgate.store.snapshots import SqlSnapshotStore
from sandgate.store.statements import upsert
from sandgate.store.templates import SqlTemplateStore
from sandgate.store.users import SqlUserStore
from sandgate.store.volumes import SqlVolumeStore
from sandgate.store.webhooks import SqlWebhookStore
from sandgate.store.workflows import SqlWorkflowStore

_PROBE = upsert(write_probe, "(probe_id) DO UPDATE SET written = write_probe.written + 1")
_IDENTITY = sa.select(database_identity.c.identity)
_ANSWER: Select[Any] = sa.select(sa.literal_column("1"))


class SqlStore:
    """See :class:`sandgate.store.base.Store`.

    ``location`` is the path of a file of SQLite, made when it is missing, or a URL ``postgresql://…``.
    ``migrate`` allows ``open`` to bring the schema to the newest version. ``checkpoint`` is False in a process that
    opens the file beside a running server: only one process may move SQLite's log into its database.
    """

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

    def __init__(
        self,
        location: Location,
        *,
        read_threads: int = 4,
        migrate: bool = True,
        checkpoint: bool = True,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._database = Database(location, read_threads, checkpoint=checkpoint, deadline_s=deadline_s)
        self._migrate = migrate
        self.environments = SqlEnvironmentStore(self._database)
        self.executions = SqlExecutionStore(self._database)
        self.users = SqlUserStore(self._database)
        self.credentials = SqlCredentialStore(self._database)
        self.idempotency = SqlIdempotencyStore(self._database)
        self.workflows = SqlWorkflowStore(self._database)
        self.runs = SqlRunStore(self._database)
        self.signals = SqlSignalStore(self._database)
        self.notes = SqlRunNotes(location)
        self.retention = SqlRetentionStore(self._database)
        self.secrets = SqlSecretStore(self._database)
        self.artifacts = SqlArtifactStore(self._database)
        self.schedules = SqlScheduleStore(self._database)
        self.webhooks = SqlWebhookStore(self._database)
        self.servers = SqlServerStore(self._database)
        self.audit = SqlAuditStore(self._database)
        self.quotas = SqlQuotaStore(self._database)
        self.snapshots = SqlSnapshotStore(self._database)
        self.volumes = SqlVolumeStore(self._database)
        self.templates = SqlTemplateStore(self._database)

    async def open(self) -> None:
        """Connect, and bring the schema to the newest version if that is allowed; once in a store's life.

        Raises ``StoreUnavailable``; ``ConfigurationError`` when the schema is old and may not be migrated, newer
        than this code, or not of sandgate.
        """
        await self._database.open(self._prepare)

    async def check(self) -> None:
        """Prove that the database answers and keeps what is written; raises ``StoreUnavailable``."""
        await self._database.read(lambda connection: connection.execute(_ANSWER).scalar_one())
        await self._database.write(_write_probe, repeatable=True)

    async def identity(self) -> str:
        """What no other database has. Raises ``StoreUnavailable``."""
        return await self._database.read(lambda connection: str(connection.execute(_IDENTITY).scalar_one()))

    async def close(self) -> None:
        """Finish the writes that were accepted and disconnect."""
        await self._database.close()

    def _prepare(self, connection: Connection) -> None:
        ensure_schema(connection, migrate=self._migrate)


def _write_probe(connection: Connection) -> None:
    connection.execute(_PROBE, {"probe_id": 1, "written": 1})
