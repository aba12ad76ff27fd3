"""Counting what only some requests have: tokens of a special kind, and fields that were left out.

Invariant: a label is made of known names alone, whatever a caller wrote.
"""

from __future__ import annotations

import re

from gateway.telemetry.record import RequestRecord
from gateway.telemetry.series import OTHER, Histograms, Numbers

FIELD_NAMES = frozenset(
    "anthropic-beta audio cache_control container context_management frequency_penalty function_call functions"
    " include inference_geo logit_bias logprobs max_tool_calls mcp_servers messages metadata min_p modalities n"
    " output_config parallel_tool_calls prediction presence_penalty prompt reasoning reasoning_effort"
    " repetition_penalty response_format seed service_tier speed stop suffix system temperature text thinking"
    " tool_choice tools top_k top_logprobs top_p truncation user verbosity web_search_options".split()
)
"""Fields of requests that backends may not know, by their names in any dialect: labels are made of no others."""

_root_of = re.compile(r"[.\[]").split


def count_parts(histograms: Histograms, numbers: Numbers, tenant: str, record: RequestRecord) -> None:
    """What of input and output was something special; ``tenant`` is the label. ``cached_input`` is a number already."""
    usage, labels = record.usage, gen_ai(record)
    if usage is None:
        return
    if usage.cached_input_tokens:
        histograms.child(*labels, "cached_input").observe(usage.cached_input_tokens)
    parts = {"cache_creation_input": usage.cache_written_input_tokens, "reasoning_output": usage.reasoning_tokens}
    for name, count in parts.items():
        if count:
            histograms.child(*labels, name).observe(count)
            numbers.child(tenant, record.scenario, name).value += count


def count_dropped(numbers: Numbers, record: RequestRecord) -> None:
    """Fields that were left out: each name once for a request, by what is at the root of its place."""
    for name in {_root_of(field, 1)[0] for field in record.dropped_fields}:
        numbers.child(record.scenario, name if name in FIELD_NAMES else OTHER).value += 1


def gen_ai(record: RequestRecord) -> tuple[str, str, str, str]:
    """Operation, provider, request model, response model: the attributes that the GenAI metrics share."""
    return record.operation, record.provider, record.request_model or record.scenario, record.response_model
