"""What a call of a backend that speaks Anthropic Messages is charged: all input once, each part at its own price."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.anthropic_api import events_of, sse
from tests.support.claude import ClaudeGateway
from tests.support.scripts import Gate, stream
from tests.support.surface import MESSAGES

TOKENS = {"input": 327, "cached": 300, "output": 40, "estimated": False, "cache_written": 20, "reasoning": 11}
COST_USD = "0.001310000"  # 7 x 5 + 300 x 0.5 + 20 x 6.25 + 40 x 25, in millionths


def line_of(claude: ClaudeGateway, request_id: str) -> Any:
    """The log line of a request."""
    return claude.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)


@pytest.mark.parametrize("streamed", [False, True])
def test_tokens_of_the_cache_cost_what_they_cost(claude: ClaudeGateway, *, streamed: bool) -> None:
    """Read and written, whole and streamed, where usage comes at the start and at the end."""
    headers = {"x-request-id": f"cost-{streamed}"}
    asked: Any = {"model": "new", "messages": MESSAGES, "extra_headers": headers}
    if streamed:
        claude.api().stream(**asked)
    else:
        claude.api().complete(**asked)
    line = line_of(claude, f"cost-{streamed}")
    assert (line["tokens"], line["cost_usd"]) == (TOKENS, COST_USD)
    seen = claude.gateway.metrics()
    written = seen.value("llm_gateway_tokens_total", tenant="acme", scenario="new", type="cache_creation_input")
    assert written > 0
    assert written % 20 == 0


def test_a_stream_that_its_caller_cuts_is_charged_the_input_that_was_reported(claude: ClaudeGateway) -> None:
    """The output is estimated from what was streamed."""
    events = [sse(event) for event in events_of(claude.answers.answer)]
    held = Gate()
    begun = stream(events[:5], ending=[])
    claude.upstream.enqueue(begun.then(held))
    asked: Any = {"model": "new", "messages": MESSAGES, "extra_headers": {"x-request-id": "cut"}}
    with claude.client() as client:
        chunks = client.chat.completions.create(stream=True, **asked)
        next(chunks)
        next(chunks)
        chunks.close()
    line = line_of(claude, "cut")
    held.open()
    output = line["tokens"].pop("output")
    assert line["tokens"] == {"input": 327, "cached": 300, "estimated": True, "cache_written": 20}
    assert 1 <= output < 40
    assert line["cost_usd"] == f"0.000{310 + output * 25:03d}000"
