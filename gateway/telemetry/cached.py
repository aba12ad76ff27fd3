"""The numbers of the cache; results are words of a fixed set, scenarios names of the registry."""

from __future__ import annotations

from gateway.telemetry import families
from gateway.telemetry.metrics import Metrics


class CacheMetrics:
    """Counts in the Metrics of its process."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.numbers[families.CACHE_REQUESTS]
        self._similarities = metrics.histograms[families.CACHE_SIMILARITY]
        self._failures = metrics.numbers[families.CACHE_REDIS_FAILURES]

    def request(self, scenario: str, result: str) -> None:
        """A call of a scenario with a cache was answered so."""
        self._requests.child(scenario, result).value += 1

    def similarity(self, scenario: str, similarity: float) -> None:
        """An answer to a question that is so similar was given."""
        self._similarities.child(scenario).observe(similarity)

    def redis_failed(self, reason: str, count: int) -> None:
        """So many commands to the Redis of the cache failed."""
        self._failures.child(reason).value += count
