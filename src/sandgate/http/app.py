"""Puts the HTTP layer together."""

from collections.abc import Callable, Mapping

from starlette.types import ASGIApp

from sandgate.auth.base import Authenticator, Links, PortLinks, Users
from sandgate.config.settings import Settings
from sandgate.core.addresses import TrustedProxies
from sandgate.core.audit import AuditSink
from sandgate.core.clock import Clock
from sandgate.core.origins import parse_origins
from sandgate.environments.base import Environments, Networks, Ports, Quotas
from sandgate.environments.builds.base import BuiltTemplates
from sandgate.environments.file_base import Files
from sandgate.environments.process_cases import Processes
from sandgate.environments.session_port import Sessions
from sandgate.environments.snapshot_base import Snapshots
from sandgate.environments.volume_cases import Volumes
from sandgate.http.api import Api
from sandgate.http.audit import AuditedRequests
from sandgate.http.boundary import Boundary
from sandgate.http.cors import CrossOrigin
from sandgate.http.idempotency import IdempotentRequests
from sandgate.http.metrics import HttpMetrics
from sandgate.http.operation import Gate
from sandgate.http.port_hosts import PortHosts
from sandgate.http.rate import RequestRate, RequestsAtOnce
from sandgate.http.readiness import Check, Readiness
from sandgate.http.routes.archives import add_archive_routes
from sandgate.http.routes.artifacts import add_artifact_routes
from sandgate.http.routes.audit import add_audit_routes
from sandgate.http.routes.auth import add_auth_routes
from sandgate.http.routes.docs import add_docs_routes
from sandgate.http.routes.environments import add_environment_routes
from sandgate.http.routes.executions import add_execution_routes
from sandgate.http.routes.files import add_file_routes
from sandgate.http.routes.health import add_health_routes
from sandgate.http.routes.links import Holders, add_link_routes
from sandgate.http.routes.network import add_network_routes
from sandgate.http.routes.ports import PortHolders, PortSite, add_port_routes
from sandgate.http.routes.processes import add_process_routes
from sandgate.http.routes.runs import add_run_routes
from sandgate.http.routes.schedules import add_schedule_routes
from sandgate.http.routes.secrets import add_secret_routes
from sandgate.http.routes.sessions import add_session_routes
from sandgate.http.routes.snapshots import add_snapshot_routes
from sandgate.http.routes.templates import add_template_routes
from sandgate.http.routes.terminals import add_terminal_routes
from sandgate.http.routes.users import add_user_routes
from sandgate.http.routes.volumes import add_volume_routes
from sandgate.http.routes.watches import add_watch_routes
from sandgate.http.routes.webhooks import add_hook_routes, add_webhook_routes
from sandgate.http.routes.workflows import add_workflow_routes
from sandgate.http.socket_tickets import SocketTickets
from sandgate.http.streaming import Streams
from sandgate.http.unread import UnreadAnswers
from sandgate.store.base import AuditStore, IdempotencyStore
from sandgate.workflows.base import Artifacts, Secrets, Workflows
from sandgate.workflows.triggers import Schedules, Webhooks


def create_app(
    *,
    authenticator: Authenticator,
    users: Users,
    environments: Environments,
    files: Files,
    sessions: Sessions,
    processes: Processes,
    links: Links,
    networks: Networks,
    ports: Ports,
    port_links: PortLinks,
    quotas: Quotas,
    snapshots: Snapshots,
    volumes: Volumes,
    templates: BuiltTemplates,
    workflows: Workflows,
    secrets: Secrets,
    artifacts: Artifacts,
    schedules: Schedules,
    webhooks: Webhooks,
    idempotency: IdempotencyStore,
    audit: AuditSink,
    audit_rows: AuditStore,
    checks: Mapping[str, Check],
    clock: Clock,
    settings: Settings,
    server_id: str = "server",
    gauges: Mapping[str, tuple[str, Callable[[], float]]] | None = None,
) -> ASGIApp:
    """The ASGI application.

    ``server_id`` names this server in claims of idempotency keys. ``checks`` are what ``/readyz`` asks, by name; each
    raises a ``SandgateError`` when its part does not answer.
    ``gauges`` are further figures of ``/metrics``: by name, a help text and a function that reads one.
    """
    keys = IdempotentRequests(idempotency, clock, settings.idempotency_retention_s, server_id)
    rate = RequestRate(settings.requests_per_s, clock)
    at_once, unread = RequestsAtOnce(settings.max_requests_at_once_per_user), UnreadAnswers.of(settings)
    audited = AuditedRequests(audit, clock, with_executions=settings.audit_executions)
    tickets, origins = SocketTickets(clock), parse_origins(settings.cors_origins)
    api = Api(Gate(authenticator, keys, settings.max_body_bytes, rate, at_once, unread, audited, tickets))
    streams = Streams(settings)
    metrics = _make_metrics(streams, gauges or {})
    add_execution_routes(api, environments, streams)
    add_session_routes(api, sessions)
    _add_all_file_routes(api, files, streams)
    add_link_routes(api, files, Holders(links, rate, at_once), settings.max_file_link_lifetime_s)
    add_process_routes(api, processes, streams, settings.max_body_bytes)
    add_terminal_routes(api, processes, streams, tickets, origins)
    _add_environment_routes(api, environments, snapshots, networks)
    _add_volume_and_template_routes(api, volumes, templates, streams)
    site = _add_port_site(api, ports, PortHolders(port_links, rate, at_once), settings)
    _add_orchestrator_routes(api, workflows, artifacts, secrets, streams)
    _add_trigger_routes(api, schedules, webhooks, settings)
    _add_account_routes(api, authenticator, users, quotas, audit_rows)
    _add_own_routes(api, Readiness(checks, clock), metrics)
    cross_origin = CrossOrigin(origins)
    hosts = PortHosts(api.index, site, authenticator)
    return Boundary(hosts, metrics, audited, TrustedProxies.parse(settings.trusted_proxies), cross_origin)


def _add_environment_routes(api: Api, environments: Environments, snapshots: Snapshots, networks: Networks) -> None:
    add_environment_routes(api, environments)
    add_snapshot_routes(api, snapshots, environments)
    add_network_routes(api, networks)


def _add_volume_and_template_routes(api: Api, volumes: Volumes, templates: BuiltTemplates, streams: Streams) -> None:
    add_volume_routes(api, volumes)
    add_template_routes(api, templates, streams)


def _add_own_routes(api: Api, readiness: Readiness, metrics: HttpMetrics) -> None:
    add_health_routes(api, readiness, metrics)
    add_docs_routes(api)


def _add_orchestrator_routes(
    api: Api, workflows: Workflows, artifacts: Artifacts, secrets: Secrets, streams: Streams
) -> None:
    add_workflow_routes(api, workflows)
    add_run_routes(api, workflows, streams)
    add_artifact_routes(api, artifacts)
    add_secret_routes(api, secrets)


def _make_metrics(streams: Streams, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> HttpMetrics:
    metrics = HttpMetrics()
    metrics.add_gauge("sandgate_streams_open", "Event streams that are open.", lambda: streams.open_count)
    for name, (help_text, read) in gauges.items():
        metrics.add_gauge(name, help_text, read)
    return metrics


def _add_all_file_routes(api: Api, files: Files, streams: Streams) -> None:
    add_file_routes(api, files)
    add_archive_routes(api, files)
    add_watch_routes(api, files, streams)


def _add_trigger_routes(api: Api, schedules: Schedules, webhooks: Webhooks, settings: Settings) -> None:
    add_schedule_routes(api, schedules)
    add_webhook_routes(api, webhooks)
    add_hook_routes(api, webhooks, settings.webhook_max_body_bytes)


def _add_port_site(api: Api, ports: Ports, holders: PortHolders, settings: Settings) -> PortSite:
    site = PortSite.of(ports, holders, settings)
    add_port_routes(api, site)
    return site


def _add_account_routes(
    api: Api, authenticator: Authenticator, users: Users, quotas: Quotas, audit_rows: AuditStore
) -> None:
    add_auth_routes(api, authenticator)
    add_user_routes(api, users, quotas)
    add_audit_routes(api, audit_rows)
