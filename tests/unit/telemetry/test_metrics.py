"""What a scrape says after what happened, read by the parsers of prometheus_client."""

from __future__ import annotations

import pytest

from gateway.clock import wall
from gateway.model import Usage
from gateway.telemetry import Metrics, families
from tests.unit.telemetry.samples import GEN_AI, OPENMETRICS, Scrape, finish, record, scrape, snapshot, stream_record

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What Prometheus 3 sends."""


@pytest.fixture
def metrics() -> Metrics:
    """Of one process."""
    return Metrics(version="1.2.3", max_tenants=2)


def test_a_request_is_counted_by_who_asked_for_what_and_how_it_ended(metrics: Metrics) -> None:
    """One series per tenant, scenario, variant, backend and status."""
    finish(metrics, record())
    finish(metrics, record())
    finish(metrics, record(status=502, error_code="upstream_failed"))
    name, labels = "llm_gateway_requests_total", {"tenant": "acme", "scenario": "support", "variant": "base"}
    seen = scrape(metrics)
    assert seen.value(name, backend="qwen", code="200", **labels) == 2
    assert seen.value(name, backend="qwen", code="502", **labels) == 1


def test_a_refused_request_carries_no_name_that_was_not_checked(metrics: Metrics) -> None:
    """Without a tenant, a scenario or a backend the labels are empty, and the model metrics know nothing of it."""
    empty = {"tenant": "", "scenario": "", "request_model": "", "backend": "", "provider": "", "response_model": ""}
    finish(metrics, record(**empty, status=401, error_code="invalid_api_key", usage=None, attempts=[]))
    seen = scrape(metrics)
    assert seen.labels("llm_gateway_requests_total") == [
        {"tenant": "", "scenario": "", "variant": "base", "backend": "", "code": "401"}
    ]
    assert seen.labels("gen_ai_server_request_duration_count") == []
    assert seen.labels("llm_gateway_tokens_total") == []


def test_tokens_and_cost_add_up_exactly(metrics: Metrics) -> None:
    """Cost is counted in integers: a million calls of 0.0000123 USD are 12.3 USD."""
    made = record()
    for _ in range(10_000):
        metrics.request_finished(made)
    seen = scrape(metrics)
    owner = {"tenant": "acme", "scenario": "support"}
    assert seen.value("llm_gateway_tokens_total", type="input", **owner) == 160_000
    assert seen.value("llm_gateway_tokens_total", type="cached_input", **owner) == 40_000
    assert seen.value("llm_gateway_tokens_total", type="output", **owner) == 50_000
    assert seen.value("llm_gateway_cost_usd_total", **owner) == 0.123


@pytest.mark.parametrize(
    ("spec", "bounds"),
    [
        (families.TOKEN_USAGE, "1 4 16 64 256 1024 4096 16384 65536 262144 1048576 4194304 16777216 67108864"),
        (families.REQUEST_DURATION, "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92"),
        (
            families.TIME_TO_FIRST_TOKEN,
            "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0",
        ),
        (families.TIME_PER_OUTPUT_TOKEN, "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5"),
    ],
)
def test_buckets_are_those_of_the_conventions(metrics: Metrics, spec: families.Spec, bounds: str) -> None:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, as the scrape shows them."""
    finish(metrics, stream_record())
    shown = {float(labels["le"]) for labels in scrape(metrics).labels(f"{spec.name}_bucket") if labels["le"] != "+Inf"}
    assert sorted(shown) == [float(bound) for bound in bounds.split()]


def test_token_usage_falls_into_exact_buckets(metrics: Metrics) -> None:
    """A value on a bound belongs below it: 16 input tokens are in ``le=16``, 5 output tokens in ``le=16`` only."""
    finish(metrics, record())
    seen = scrape(metrics)
    used = seen.buckets("gen_ai_client_token_usage", gen_ai_token_type="input", **GEN_AI)
    assert (used["4.0"], used["16.0"], used["64.0"], used["+Inf"]) == (0, 1, 1, 1)
    made = seen.buckets("gen_ai_client_token_usage", gen_ai_token_type="output", **GEN_AI)
    assert (made["4.0"], made["16.0"], made["+Inf"]) == (0, 1, 1)
    assert seen.value("gen_ai_client_token_usage_sum", gen_ai_token_type="input", **GEN_AI) == 16
    assert seen.value("gen_ai_client_token_usage_count", gen_ai_token_type="output", **GEN_AI) == 1


def test_duration_is_told_apart_by_error(metrics: Metrics) -> None:
    """``error_type`` is empty for success and the error's code otherwise."""
    finish(metrics, record())
    finish(metrics, record(status=504, error_code="upstream_timeout", usage=None, finished_at=200.0))
    seen = scrape(metrics)
    well = seen.buckets("gen_ai_server_request_duration", error_type="", **GEN_AI)
    assert (well["0.32"], well["0.64"]) == (0, 1)
    failed = seen.buckets("gen_ai_server_request_duration", error_type="upstream_timeout", **GEN_AI)
    assert (failed["81.92"], failed["+Inf"]) == (0, 1)
    assert seen.value("gen_ai_server_request_duration_sum", error_type="upstream_timeout", **GEN_AI) == 100.0


def test_overhead_is_the_time_that_nobody_else_took(metrics: Metrics) -> None:
    """Finished minus started minus both waits; never negative, since clocks are read at different moments."""
    finish(metrics, record(started_at=0.0, finished_at=1.0, upstream_wait_s=0.5, client_wait_s=0.25))
    finish(metrics, record(started_at=0.0, finished_at=1.0, upstream_wait_s=1.5))
    seen = scrape(metrics)
    assert seen.value("llm_gateway_overhead_seconds_sum") == 0.25
    assert seen.value("llm_gateway_overhead_seconds_bucket", le="0.0001") == 1
    assert seen.value("llm_gateway_overhead_seconds_count") == 2


def test_a_stream_tells_its_first_token_and_its_pace(metrics: Metrics) -> None:
    """0.02 s to the first token, then four tokens in 0.2 s: 0.05 s each."""
    finish(metrics, stream_record())
    seen = scrape(metrics)
    first = seen.buckets("gen_ai_server_time_to_first_token", **GEN_AI)
    assert (first["0.01"], first["0.04"]) == (0, 1)
    assert seen.value("llm_gateway_time_to_first_token_seconds_sum", scenario="support") == pytest.approx(0.02)
    assert seen.value("gen_ai_server_time_per_output_token_sum", **GEN_AI) == pytest.approx(0.05)
    name = "llm_gateway_stream_ends_total"
    assert seen.value(name, scenario="support", backend="qwen", reason="complete") == 1


def test_a_broken_stream_is_a_failure_and_no_measure_of_the_model(metrics: Metrics) -> None:
    """Its end has a reason, our own first-token histogram has it, those of successful responses do not."""
    finish(metrics, stream_record(status=502, error_code="upstream_failed", stream_end_reason="reset", usage=None))
    seen = scrape(metrics)
    assert seen.value("llm_gateway_stream_ends_total", scenario="support", backend="qwen", reason="reset") == 1
    assert seen.value("llm_gateway_time_to_first_token_seconds_count", scenario="support") == 1
    assert sum(seen.buckets("gen_ai_server_time_to_first_token", **GEN_AI).values()) == 0


def test_one_token_has_no_pace(metrics: Metrics) -> None:
    """There is no token after the first to divide by."""
    finish(metrics, stream_record(usage=Usage(input_tokens=3, output_tokens=1)))
    assert sum(scrape(metrics).buckets("gen_ai_server_time_per_output_token", **GEN_AI).values()) == 0


def test_gauges_follow_what_is_under_way(metrics: Metrics) -> None:
    """Requests and attempts begun and not ended."""
    metrics.request_started()
    metrics.request_started()
    metrics.backend_inflight("qwen").value += 1
    metrics.backend_inflight("qwen").value += 1
    metrics.backend_inflight("qwen").value -= 1
    metrics.request_finished(record())
    seen = scrape(metrics)
    assert seen.value("llm_gateway_inflight_requests") == 1
    assert seen.value("llm_gateway_backend_inflight_requests", backend="qwen") == 1


def test_attempts_count_by_outcome(metrics: Metrics) -> None:
    """Each as it ends; a finished request does not count them again."""
    metrics.attempt("qwen", "reset")
    metrics.attempt("gpt", "ok")
    finish(metrics, record(attempts=[("qwen", "reset", 0.1, ""), ("gpt", "ok", 0.1, "")]))
    seen = scrape(metrics)
    assert seen.value("llm_gateway_upstream_attempts_total", backend="qwen", outcome="reset") == 1
    assert seen.value("llm_gateway_upstream_attempts_total", backend="gpt", outcome="ok") == 1


def test_refusals_of_the_server_count_by_code(metrics: Metrics) -> None:
    """They are no requests."""
    metrics.connection_refused("invalid_http")
    metrics.connection_refused("invalid_http")
    seen = scrape(metrics)
    assert seen.value("llm_gateway_connection_refusals_total", code="invalid_http") == 2
    assert seen.labels("llm_gateway_requests_total") == []


def test_tenants_beyond_the_bound_become_other(metrics: Metrics) -> None:
    """First come, first served; nobody's request goes uncounted."""
    for tenant in ("a", "b", "c", "d", "a"):
        finish(metrics, record(tenant=tenant))
    counts: dict[str, float] = {}
    for sample in scrape(metrics).samples:
        if sample.name == "llm_gateway_requests_total":
            counts[sample.labels["tenant"]] = sample.value
    assert counts == {"a": 2, "b": 1, "other": 2}


def test_label_sets_are_bounded(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound of a metric everything is counted in one child, and the totals still hold."""
    monkeypatch.setattr(families, "MAX_CHILDREN", 10)
    monkeypatch.setattr(families, "MAX_HISTOGRAM_CHILDREN", 10)
    for number in range(50):
        finish(metrics, stream_record(scenario=f"s{number}", request_model=f"s{number}"))
    seen = scrape(metrics)
    for spec in families.ACCUMULATED:
        suffix = "_count" if spec.kind == "histogram" else ""
        assert len(seen.labels(spec.name + suffix)) <= 11
    assert sum(s.value for s in seen.samples if s.name == "llm_gateway_requests_total") == 50
    assert seen.value("llm_gateway_time_to_first_token_seconds_count", scenario="other") == 40


def test_words_of_unexpected_kinds_are_bounded(metrics: Metrics) -> None:
    """An error code, a reason or an outcome that somebody invents cannot mint series without end."""
    for number in range(200):
        finish(metrics, stream_record(error_code=f"e{number}", stream_end_reason=f"r{number}"))
        metrics.attempt("qwen", f"o{number}")
    seen = scrape(metrics)
    errors = {labels["error_type"] for labels in seen.labels("gen_ai_server_request_duration_count")}
    assert len(errors) == 65
    assert "_OTHER" in errors
    assert len(seen.labels("llm_gateway_stream_ends_total")) == 33
    assert len(seen.labels("llm_gateway_upstream_attempts_total")) == 33


def test_forgetting_the_way_to_a_series_keeps_its_count(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of label sets is cleared when it is full; what was counted stays and goes on."""
    monkeypatch.setattr("gateway.telemetry.metrics._MAX_CACHED_SERIES", 2)
    for _ in range(3):
        for scenario in ("a", "b", "c"):
            finish(metrics, record(scenario=scenario))
    seen = scrape(metrics)
    labels = {"tenant": "acme", "variant": "base", "backend": "qwen", "code": "200"}
    assert [seen.value("llm_gateway_requests_total", scenario=name, **labels) for name in "abc"] == [3, 3, 3]


def test_the_registry_in_use_is_told(metrics: Metrics) -> None:
    """Generation, content, age and objects by state; a load with problems is a failed one."""
    metrics.registry_loaded(snapshot(1, "old", wall()))
    metrics.registry_loaded(snapshot(2, "new", wall() - 60), problems=3)
    metrics.registry_reload_failed()
    seen = scrape(metrics)
    assert seen.value("llm_gateway_registry_generation") == 2
    assert seen.labels("llm_gateway_registry_info") == [{"hash": "new"}]
    assert seen.value("llm_gateway_registry_objects", kind="Backend", state="live") == 2
    assert seen.value("llm_gateway_registry_objects", kind="Scenario", state="refused") == 1
    assert seen.value("llm_gateway_registry_reload_failures_total") == 2
    assert 60 <= seen.value("llm_gateway_registry_age_seconds") < 90


def test_the_build_and_the_process_are_told(metrics: Metrics) -> None:
    """What is running, and what it takes."""
    seen = scrape(metrics)
    assert [labels["version"] for labels in seen.labels("llm_gateway_build_info")] == ["1.2.3"]
    assert seen.value("process_resident_memory_bytes") > 0
    assert seen.labels("python_info")


def test_both_formats_say_the_same(metrics: Metrics) -> None:
    """Every sample of ours in the text format is in OpenMetrics with the same value."""
    finish(metrics, stream_record())
    metrics.registry_loaded(snapshot())
    text, openmetrics = _ours(scrape(metrics)), _ours(scrape(metrics, OPENMETRICS))
    assert text == openmetrics
    assert len(text) > 100


def _ours(seen: Scrape) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for sample in seen.samples
        if sample.name.startswith(("llm_gateway", "gen_ai")) and not sample.name.endswith("_age_seconds")
    }


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=nonsense", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=what", False),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", False),
        (PROMETHEUS_3, True),
        (",;=,;;==," * 100, False),
    ],
)
def test_the_format_follows_the_accept_header(metrics: Metrics, accept: str | None, openmetrics: bool) -> None:
    """OpenMetrics where it is preferred in a version that we write, else the text format."""
    body, content_type = metrics.render(accept)
    if openmetrics:
        assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert body.endswith(b"# EOF\n")
    else:
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_each_object_counts_for_itself(metrics: Metrics) -> None:
    """There is no global registry."""
    finish(metrics, record())
    assert scrape(Metrics(version="1")).labels("llm_gateway_requests_total") == []
    assert len(scrape(metrics).labels("llm_gateway_requests_total")) == 1


def test_a_single_process_has_nothing_to_publish(metrics: Metrics) -> None:
    """Flush and close are harmless, and a scrape still answers after them."""
    finish(metrics, record())
    metrics.flush()
    metrics.close()
    assert scrape(metrics).value("llm_gateway_overhead_seconds_count") == 1
