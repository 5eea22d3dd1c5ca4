"""What /metrics tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one application; each has a registry of its own, so that two can live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tercet_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "tercet_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "tercet_encode_batch_queries",
            "Queries encoded together.",
            ["encoder"],
            buckets=_BATCHES,
            registry=self.registry,
        )
        self._queries = Counter("tercet_queries", "Queries searched.", ["using"], registry=self.registry)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A figure that is read whenever Prometheus asks."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def queries(self, using: str, n: int) -> None:
        """Count searched queries."""
        self._queries.labels(using).inc(n)

    def batch(self, encoder: str, n: int) -> None:
        """Count a batch of n queries through an encoder."""
        self._batches.labels(encoder).observe(n)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
