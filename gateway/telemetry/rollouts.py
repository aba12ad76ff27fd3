"""What is counted of canaries and shadows, apart from everything that is counted of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry import families

if TYPE_CHECKING:
    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.record import RequestRecord


class RolloutCounts:
    """Counts among the numbers of ``metrics``. Reasons for dropping a copy are words of a fixed set."""

    def __init__(self, metrics: Metrics) -> None:
        self._numbers = metrics.numbers
        self._histograms = metrics.histograms

    def canary_withdrawn(self, scenario: str, *, is_withdrawn: bool) -> None:
        """Whether the canary of a scenario is withdrawn."""
        self._numbers[families.CANARY_WITHDRAWN].child(scenario).value = int(is_withdrawn)

    def shadow_dropped(self, scenario: str, reason: str) -> None:
        """A copy of a request was not sent."""
        self._numbers[families.SHADOW_DROPPED].child(scenario, reason).value += 1

    def shadow_finished(self, record: RequestRecord) -> None:
        """A shadow's call is over; its attempts were counted as they ended."""
        scenario, numbers = record.scenario, self._numbers
        numbers[families.SHADOW_CALLS].child(scenario, record.backend, str(record.status)).value += 1
        self._histograms[families.SHADOW_SECONDS].child(scenario).observe(record.duration_s)
        if record.first_token_at is not None:
            waited_s = max(record.first_token_at - record.started_at, 0.0)
            self._histograms[families.SHADOW_FIRST_TOKEN].child(scenario).observe(waited_s)
        usage = record.usage
        if usage is not None:
            tokens = numbers[families.SHADOW_TOKENS]
            tokens.child(scenario, "input").value += usage.input_tokens
            tokens.child(scenario, "cached_input").value += usage.cached_input_tokens
            tokens.child(scenario, "output").value += usage.output_tokens
            numbers[families.SHADOW_COST].child(scenario).value += record.cost_nano_usd
