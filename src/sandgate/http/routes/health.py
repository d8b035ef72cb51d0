"""What machines ask: is it alive, is it ready, how is it doing."""

from sandgate.core import errors
from sandgate.core.errors import Forbidden
from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.metrics import CONTENT_TYPE, HttpMetrics
from sandgate.http.models.health import HealthAnswer, ReadyAnswer
from sandgate.http.readiness import Readiness

_TAG = "health"


def add_health_routes(api: Api, readiness: Readiness, metrics: HttpMetrics) -> None:
    """Declare the operations."""

    @api.operation("GET", "/healthz", tag=_TAG)
    async def get_health() -> HealthAnswer:
        """Whether the process answers."""
        return HealthAnswer()

    @api.operation("GET", "/readyz", tag=_TAG, errors=(errors.NotReady,))
    async def get_readiness() -> ReadyAnswer:
        """Whether database, launcher and templates are there; 503 names what is missing."""
        await readiness.check()
        return ReadyAnswer()

    @api.operation(
        "GET",
        "/metrics",
        tag=_TAG,
        errors=(errors.Forbidden,),
        extra={"responses": {"200": {"content": {"text/plain": {"schema": {"type": "string"}}}}}},
    )
    async def get_metrics(caller: Caller) -> Answer:
        """Figures about the service for Prometheus; for admins."""
        if not caller.is_admin:
            raise Forbidden("Figures about the whole service are for admins; ask with an admin's token")
        return Answer(200, metrics.render(), CONTENT_TYPE)
