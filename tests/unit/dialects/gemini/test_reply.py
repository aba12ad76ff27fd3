"""Whole answers and errors of Gemini in the chat dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.gemini.errors import refusal_body, retry_after_s
from gateway.dialects.gemini.reply import read_whole
from gateway.errors import AttemptFailed
from gateway.model import Usage
from tests.support.gemini import answer, call, error, error_info, retry_info, usage


def read(document: object) -> tuple[Any, Usage | None]:
    """The completion and its usage."""
    body, facts = read_whole(json.dumps(document, indent=2).encode())
    return json.loads(body), facts.usage


def test_usage_counts_all_that_went_in_and_came_out() -> None:
    """Cached tokens are in the input, thoughts are beside the candidates' tokens."""
    used = usage(10, 3, cachedContentTokenCount=4, thoughtsTokenCount=5, toolUsePromptTokenCount=2)
    told, read_usage = read(answer("x", used=used))
    assert told["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 8,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert read_usage == Usage(input_tokens=12, cached_input_tokens=4, output_tokens=8, reasoning_tokens=5)


def test_figures_that_make_no_sense_are_bounded() -> None:
    """A negative one is none, a huge one is not charged as it is."""
    told, _ = read({"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage(-5, 1 << 60)})
    assert told["usage"]["prompt_tokens"] == 0
    assert told["usage"]["completion_tokens"] == 1 << 39


def test_an_answer_without_usage() -> None:
    """Nothing is said of it, and an estimate goes by the text."""
    body, facts = read_whole(b'{"candidates":[{"content":{"parts":[{"text":"abc"}]},"finishReason":"STOP"}]}')
    assert b"usage" not in body
    assert (facts.usage, facts.output_bytes) == (None, 3)


def test_arguments_are_compact() -> None:
    """However Gemini writes them."""
    told, _ = read(answer(call("f", {"a": ["ä", 1.5, None]}), call("g", {})))
    assert [one["function"] for one in told["choices"][0]["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"a":["\\u00e4",1.5,null]}'},
        {"name": "g", "arguments": "{}"},
    ]


def test_parts_that_chat_has_no_place_for_are_passed_over() -> None:
    """Code that ran at the provider, pictures, what comes in later versions."""
    parts = [{"executableCode": {"code": "1", "language": "PYTHON"}}, {"text": "a"}, {"inlineData": {"data": "AAAA"}}]
    told, _ = read({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP", "later": 1}], "more": []})
    assert told["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"<html>", "protocol_error"),
        (b"[]", "protocol_error"),
        (b"{}", "protocol_error"),
        (b'{"candidates":[]}', "protocol_error"),
        (b'{"candidates":[{"content":{"parts":[{"functionCall":3}]}}]}', "protocol_error"),
        (b'{"candidates":[{"finishReason":"OTHER"}]}', "error_in_body"),
        (json.dumps(error(429)).encode(), "rate_limited"),
        (json.dumps(error(503)).encode(), "error_in_body"),
    ],
)
def test_what_is_no_answer(body: bytes, outcome: str) -> None:
    """Fails the attempt."""
    with pytest.raises(AttemptFailed) as caught:
        read_whole(body)
    assert caught.value.outcome == outcome


def test_refusals_are_told_in_the_envelope_of_chat() -> None:
    """Without what names the operator's account; also those that come in a list, or as no JSON."""
    text = "In projects/acme-1/locations/x and project 123456789: `generation_config.top_k` of projects/b."
    for document in (error(400, text), [error(400, text)]):
        told = json.loads(refusal_body(400, json.dumps(document).encode()))["error"]
        assert told["message"] == "In projects/-/locations/x and project -: `generation_config.top_k` of projects/-"
        assert (told["type"], told["code"]) == ("invalid_request_error", "upstream_refused")
    for body in (b"<html>", b"[]", b"{}", b'{"error":"no"}'):
        assert json.loads(refusal_body(413, body))["error"]["message"] == "The model backend refused the request."


@pytest.mark.parametrize(
    "document",
    [
        error(400, "API key not valid. Please pass a valid API key."),
        error(400, "x", "", error_info("API_KEY_INVALID")),
        error(400, "User location is not supported.", "FAILED_PRECONDITION"),
    ],
)
def test_a_refusal_of_the_gateways_own_account(document: Any) -> None:
    """Is no fault of the caller."""
    with pytest.raises(AttemptFailed) as caught:
        refusal_body(400, json.dumps(document).encode())
    assert (caught.value.outcome, caught.value.status) == ("unauthorized", 400)
    assert "API key" not in caught.value.detail


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("7s", 7.0), ("6.5s", 6.5), ("0s", 0.0), ("999999s", 86_400.0), ("-1s", None), ("soon", None)],
)
def test_how_long_to_wait(delay: str, seconds: float | None) -> None:
    """``RetryInfo``, within a day."""
    document = error(429, "x", "", error_info("RATE_LIMIT_EXCEEDED"), retry_info(delay))
    assert retry_after_s(json.dumps(document).encode()) == seconds
    assert retry_after_s(b"<html>") is None
