"""What a scrape says of backends, keys and sources: the states that alerts go by."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.clock import monotonic, wall
from gateway.errors import Outcome
from gateway.redis.observer import Failure, Notice
from gateway.telemetry import Metrics, families
from gateway.telemetry.health import FAILURES_IN_A_ROW, FORGOTTEN_AFTER_S
from tests.unit.telemetry.samples import finish, record, scrape

NEUTRAL = ("rate_limited", "busy", "cancelled")
WORKING = ("ok", "refused")


@pytest.fixture
def metrics() -> Metrics:
    """Of one process."""
    return Metrics(version="1.2.3", max_tenants=2)


def healthy(metrics: Metrics, *outcomes: str) -> list[float]:
    """What is said of a backend after each of these attempts."""
    seen = []
    for outcome in outcomes:
        metrics.attempt("qwen", outcome)
        seen.append(scrape(metrics).value("llm_gateway_backend_healthy", backend="qwen"))
    return seen


def by(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    """The values of a metric by its one label."""
    seen = scrape(metrics)
    return {each[label]: seen.value(name, **each) for each in seen.labels(name)}


@pytest.mark.parametrize("outcome", [each for each in get_args(Outcome) if each not in {*WORKING, *NEUTRAL}])
def test_a_backend_is_down_after_faults_in_a_row(metrics: Metrics, outcome: str) -> None:
    """Of whatever kind, until the first attempt that it answers."""
    assert healthy(metrics, *[outcome] * FAILURES_IN_A_ROW, "ok") == [1] * (FAILURES_IN_A_ROW - 1) + [0, 1]


@pytest.mark.parametrize("outcome", NEUTRAL)
def test_what_is_no_fault_of_a_backend_changes_nothing(metrics: Metrics, outcome: str) -> None:
    """Neither for the worse nor for the better."""
    assert healthy(metrics, *[outcome] * 10) == [1] * 10
    assert healthy(metrics, *["reset"] * FAILURES_IN_A_ROW, outcome, outcome)[-3:] == [0, 0, 0]


def test_a_refusal_shows_that_a_backend_works(metrics: Metrics) -> None:
    """It read the request and judged it."""
    assert healthy(metrics, *["reset"] * FAILURES_IN_A_ROW, "refused")[-2:] == [0, 1]
    assert healthy(metrics, *["reset"] * (FAILURES_IN_A_ROW - 1), "refused", "reset")[-1] == 1


def test_a_backend_that_nobody_called_has_no_health(metrics: Metrics) -> None:
    """Nothing is known of it."""
    metrics.attempt("other", "ok")
    assert scrape(metrics).labels("llm_gateway_backend_healthy") == [{"backend": "other"}]


def test_failures_of_long_ago_are_forgotten(metrics: Metrics) -> None:
    """A backend that nobody tries any more must not be called down for ever."""
    healthy(metrics, *["reset"] * FAILURES_IN_A_ROW)
    metrics.states.backends.forget(monotonic() + FORGOTTEN_AFTER_S / 2)
    assert scrape(metrics).value("llm_gateway_backend_healthy", backend="qwen") == 0
    metrics.states.backends.forget(monotonic() + FORGOTTEN_AFTER_S)
    assert scrape(metrics).value("llm_gateway_backend_healthy", backend="qwen") == 1


def test_a_tenant_has_the_end_of_its_first_key_and_0_once_it_has_none(metrics: Metrics) -> None:
    """Tenants beyond the bound share one series, which has the soonest of theirs."""
    name = "llm_gateway_key_expiry_timestamp_seconds"
    metrics.states.keys_expire({"a": 400.0, "b": 300.0, "c": 200.0, "d": 100.0})
    assert by(metrics, name, "tenant") == {"a": 400, "b": 300, "other": 100}
    metrics.states.keys_expire({"b": 500.0})
    assert by(metrics, name, "tenant") == {"a": 0, "b": 500, "other": 0}


def test_the_source_of_the_registry_was_seen_just_now(metrics: Metrics) -> None:
    """As a time stamp, so that a gateway that hangs shows how old it is."""
    before = int(wall())
    metrics.registry_seen()
    assert before <= scrape(metrics).value("llm_gateway_registry_seen_timestamp_seconds") <= wall()


def test_fetches_of_keys_are_told_apart(metrics: Metrics) -> None:
    """By issuer and by how they ended."""
    metrics.states.jwks_fetched("https://idp.example", ok=True)
    metrics.states.jwks_fetched("https://idp.example", ok=False)
    metrics.states.jwks_fetched("https://idp.example", ok=False)
    seen = scrape(metrics)
    assert seen.value("llm_gateway_jwks_fetches_total", issuer="https://idp.example", result="ok") == 1
    assert seen.value("llm_gateway_jwks_fetches_total", issuer="https://idp.example", result="failed") == 2


def test_what_is_rare_is_there_before_it_happens(metrics: Metrics) -> None:
    """Prometheus sees no increase in a series that begins with 1: every word of these labels is there as 0."""
    seen = scrape(metrics)
    words = {each["notice"] for each in seen.labels("llm_gateway_redis_notices_total")}
    assert words == set(get_args(Notice))
    assert {each["reason"] for each in seen.labels("llm_gateway_redis_failures_total")} == set(get_args(Failure))
    policies = {each["policy"] for each in seen.labels("llm_gateway_degraded_total") if each["dependency"] == "limits"}
    assert policies == {"local", "open", "closed"}
    for spec in families.ACCUMULATED:
        assert all(len(labels) == len(spec.labels) for labels in spec.zeros), spec.name


@pytest.mark.parametrize(
    ("outcomes", "counted"),
    [
        (["ok"], 0),
        (["reset"], 0),
        (["reset", "ok"], 1),
        (["busy", "reset", "ok"], 1),
        (["ok", "ok"], 0),
        (["refused", "ok"], 0),
    ],
)
def test_a_request_with_a_failed_attempt_before_its_last_is_a_fallback(
    metrics: Metrics, outcomes: list[str], counted: int
) -> None:
    """Once, however many attempts there were; an answer that is asked for again is none."""
    finish(metrics, record(attempts=[("qwen", outcome, 0.1, "") for outcome in outcomes]))
    assert sum(by(metrics, "llm_gateway_fallback_requests_total", "scenario").values()) == counted
