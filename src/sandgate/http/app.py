"""Puts the HTTP layer together."""

from collections.abc import Callable, Mapping

from starlette.types import ASGIApp

from sandgate.auth.base import Authenticator, Users
from sandgate.config.settings import Settings
from sandgate.core.addresses import TrustedProxies
from sandgate.core.audit import AuditSink
from sandgate.core.clock import Clock
from sandgate.environments.base import Environments, Files, Quotas, Templates
from sandgate.http.api import Api
from sandgate.http.audit import AuditedRequests
from sandgate.http.boundary import Boundary
from sandgate.http.idempotency import IdempotentRequests
from sandgate.http.metrics import HttpMetrics
from sandgate.http.operation import Gate
from sandgate.http.rate import RequestRate, RequestsAtOnce
from sandgate.http.readiness import Check, Readiness
from sandgate.http.routes.artifacts import add_artifact_routes
from sandgate.http.routes.audit import add_audit_routes
from sandgate.http.routes.auth import add_auth_routes
from sandgate.http.routes.docs import add_docs_routes
from sandgate.http.routes.environments import add_environment_routes
from sandgate.http.routes.executions import add_execution_routes
from sandgate.http.routes.files import add_file_routes
from sandgate.http.routes.health import add_health_routes
from sandgate.http.routes.runs import add_run_routes
from sandgate.http.routes.schedules import add_schedule_routes
from sandgate.http.routes.secrets import add_secret_routes
from sandgate.http.routes.templates import add_template_routes
from sandgate.http.routes.users import add_user_routes
from sandgate.http.routes.webhooks import add_hook_routes, add_webhook_routes
from sandgate.http.routes.workflows import add_workflow_routes
from sandgate.http.streaming import Streams
from sandgate.store.base import AuditStore, IdempotencyStore
from sandgate.workflows.base import Artifacts, Secrets, Workflows
from sandgate.workflows.triggers import Schedules, Webhooks


def create_app(
    *,
    authenticator: Authenticator,
    users: Users,
    environments: Environments,
    files: Files,
    quotas: Quotas,
    templates: Templates,
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
    at_once = RequestsAtOnce(settings.max_requests_at_once_per_user)
    audited = AuditedRequests(audit, clock, with_executions=settings.audit_executions)
    api = Api(Gate(authenticator, keys, settings.max_body_bytes, rate, at_once, audited))
    metrics = HttpMetrics()
    streams = Streams(settings)
    metrics.add_gauge("sandgate_streams_open", "Event streams that are open.", lambda: streams.open_count)
    for name, (help_text, read) in (gauges or {}).items():
        metrics.add_gauge(name, help_text, read)
    add_execution_routes(api, environments, streams)
    add_file_routes(api, files)
    add_environment_routes(api, environments)
    add_template_routes(api, templates)
    add_workflow_routes(api, workflows)
    add_run_routes(api, workflows, streams)
    add_artifact_routes(api, artifacts)
    add_secret_routes(api, secrets)
    add_schedule_routes(api, schedules)
    add_webhook_routes(api, webhooks)
    add_hook_routes(api, webhooks, settings.webhook_max_body_bytes)
    add_auth_routes(api, authenticator)
    add_user_routes(api, users, quotas)
    add_audit_routes(api, audit_rows)
    add_health_routes(api, Readiness(checks, clock), metrics)
    add_docs_routes(api)
    return Boundary(api.router, metrics, audited, TrustedProxies.parse(settings.trusted_proxies))
