"""What the gateway counts, for Prometheus. Keys appear by name, never by their secret."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """Counters of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("xl_requests", "Requests by model and status.", ["model", "status"], registry=self._registry)
        self.seconds = Histogram(
            "xl_request_seconds", "Time from a request to the end of its answer.", ["model"], buckets=_BUCKETS, registry=self._registry
        )
        self.ongoing = Gauge("xl_ongoing_sequences", "Sequences under way, by key.", ["key"], registry=self._registry)
        self.refused = Counter("xl_refused_requests", "Requests refused at the gateway, by reason.", ["reason"], registry=self._registry)
        self.replicas = Gauge("xl_replicas", "Replicas that are running.", ["model"], registry=self._registry)

    def text(self) -> bytes:
        """All counters in Prometheus's text format."""
        return generate_latest(self._registry)
