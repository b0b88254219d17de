"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counters of one application: two in a process do not share them."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("frugalnet_requests", "Requests answered", ("path", "status"), registry=own)
        self.seconds = Histogram(
            "frugalnet_request_seconds", "Seconds to answer", ("path",), buckets=_SECONDS, registry=own
        )
        self.running = Gauge("frugalnet_requests_running", "Requests that are being answered", registry=own)
        self.pictures = Counter("frugalnet_pictures", "Pictures classified", ("network",), registry=own)
        self.network_seconds = Counter("frugalnet_network_seconds", "Seconds in networks", ("network",), registry=own)

    def text(self) -> bytes:
        return generate_latest(self._registry)
