"""What a server counts of itself, as Prometheus reads it."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# Where several processes write what they count (prometheus_client reads this variable as it is imported).
SHARED = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Observed:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("convmixer_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.images = Counter("convmixer_images", "Images classified.", registry=registry)
        self.seconds = Histogram(
            "convmixer_request_seconds",
            "Seconds from a request to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batches = Histogram("convmixer_batch_images", "Images of a batch.", buckets=_BATCHES, registry=registry)
        self.waiting = Gauge(
            "convmixer_images_waiting",
            "Images on their way to an answer.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def batch(self, images: int) -> None:
        """A batch was run."""
        self.batches.observe(images)
        self.images.inc(images)

    def text(self) -> bytes:
        """All of it, of all processes, in Prometheus' format."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
