"""What of a call's tokens was something special, and what was left out of its request."""

from __future__ import annotations

from gateway.model import Usage
from gateway.telemetry import Metrics
from tests.unit.telemetry.samples import GEN_AI, finish, record, scrape

OWNER = {"tenant": "acme", "scenario": "support"}


def test_parts_of_input_and_output_are_counted_by_themselves() -> None:
    """Where there are any; each is contained in input or output as well."""
    metrics = Metrics(version="1")
    usage = Usage(
        input_tokens=100, cached_input_tokens=60, cache_written_input_tokens=30, output_tokens=20, reasoning_tokens=8
    )
    finish(metrics, record(usage=usage))
    finish(metrics, record(usage=Usage(input_tokens=1, output_tokens=1)))
    seen = scrape(metrics)
    tokens = {"input": 101, "cached_input": 60, "cache_creation_input": 30, "output": 21, "reasoning_output": 8}
    for name, count in tokens.items():
        assert seen.value("llm_gateway_tokens_total", type=name, **OWNER) == count
        assert seen.value("gen_ai_client_token_usage_sum", gen_ai_token_type=name, **GEN_AI) == count
    assert seen.value("gen_ai_client_token_usage_count", gen_ai_token_type="cached_input", **GEN_AI) == 1


def test_fields_that_were_left_out_are_counted_by_known_names() -> None:
    """By the name at their root, once for a request; what is no known name is ``other``."""
    metrics = Metrics(version="1")
    dropped = ("n", "messages[0].name", "messages.1.content", "made up", "SEED", "metadata.x", "x" * 256)
    finish(metrics, record(dropped_fields=dropped))
    finish(metrics, record(dropped_fields=("n",)))
    finish(metrics, record())
    seen = scrape(metrics)
    fields = {labels["field"] for labels in seen.labels("llm_gateway_dropped_fields_total")}
    assert fields == {"n", "messages", "metadata", "other"}
    assert seen.value("llm_gateway_dropped_fields_total", scenario="support", field="n") == 2
    assert seen.value("llm_gateway_dropped_fields_total", scenario="support", field="messages") == 1
    assert seen.value("llm_gateway_dropped_fields_total", scenario="support", field="other") == 3
