"""Figures about the service, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

# Seconds; an execution is meant to take a few milliseconds, and may take an hour.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class HttpMetrics:
    """Counts and times requests by operation and status, beside figures that others bring."""

    def __init__(self) -> None:
        # When each series began is one more series for each, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library gives it no types
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "sandgate_http_requests",
            "Requests by operation and status.",
            ("operation", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "sandgate_http_request_seconds",
            "Time from a request's head to its answer.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        # Looking a child up by its labels costs more than counting; the pairs are few.
        self._counters: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def add_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show a figure that is read when it is asked for."""
        Gauge(name, help_text, registry=self._registry).set_function(read)

    def count(self, operation: str, status: int, seconds: float) -> None:
        """Count one request; a status of 0 is a client that went away."""
        pair = self._counters.get((operation, status))
        if pair is None:
            pair = self._requests.labels(operation, str(status)), self._seconds.labels(operation)
            self._counters[operation, status] = pair
        pair[0].inc()
        pair[1].observe(seconds)

    def render(self) -> bytes:
        """All figures."""
        return generate_latest(self._registry)
