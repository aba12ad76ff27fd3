"""Whole replies, usage in its forms, and errors in the dialect of OpenAI."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.dialects.openai.errors import error_body, error_event
from gateway.dialects.openai.reply import read_reply
from gateway.dialects.openai.usage import read_usage
from gateway.errors import AttemptFailed, InvalidRequest, Overloaded
from gateway.model import Usage

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "12345678"}, "finish_reason": "stop"}


def body(**fields: Any) -> bytes:
    """A reply's body."""
    return json.dumps({"id": "c", "object": "chat.completion"} | fields).encode()


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"prompt_tokens": 11, "completion_tokens": 3}, Usage(input_tokens=11, output_tokens=3)),
        (
            {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(input_tokens=11, cached_input_tokens=4, output_tokens=3),
        ),
        (
            {"prompt_tokens": 11, "completion_tokens": 3, "prompt_cache_hit_tokens": 5},
            Usage(input_tokens=11, cached_input_tokens=5, output_tokens=3),
        ),
        (
            {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(input_tokens=2, cached_input_tokens=2),
        ),
        ({"prompt_tokens": 1, "prompt_tokens_details": None, "x": [1]}, Usage(input_tokens=1)),
        ({}, None),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": 4}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": 1 << 60}, None),
        ({"prompt_tokens": "1"}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_in_its_forms(reported: object, expected: Usage | None) -> None:
    """OpenAI's and DeepSeek's figures are read; cached input is a part of the input; nonsense counts for nothing."""
    assert read_usage(msgspec.Raw(json.dumps(reported).encode())) == expected


def test_a_reply_with_usage() -> None:
    """Reported usage is what counts."""
    facts = read_reply(body(choices=[CHOICE], usage={"prompt_tokens": 11, "completion_tokens": 3}))
    assert facts.usage == Usage(input_tokens=11, output_tokens=3)


@pytest.mark.parametrize(
    "reported",
    [
        {"prompt_tokens": 1.5},
        {"prompt_tokens": "1"},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1, "prompt_tokens_details": []},
        {},
        {"prompt_tokens": None},
        [1],
        "many",
        None,
    ],
)
def test_senseless_usage_leaves_the_reply_good(reported: object) -> None:
    """Usage of a wrong form is none; the reply is measured instead."""
    facts = read_reply(body(choices=[CHOICE], usage=reported))
    assert (facts.usage, facts.output_bytes) == (None, 8)


@pytest.mark.parametrize(
    "reply", [b'{"choices":[{"message":{"content":"\xff\xfe"}}]}', b'{"\xff":1,"choices":[{"\xff":1}],"object":"\xff"}']
)
def test_text_that_is_no_utf8_passes(reply: bytes) -> None:
    """What a backend wrote is the caller's to read: its text is not judged here."""
    assert read_reply(reply).usage is None


@pytest.mark.parametrize(
    ("choices", "size"),
    [
        ([CHOICE], 8),
        ([CHOICE, CHOICE], 16),
        ([{"message": {"content": None, "reasoning_content": "1234"}}], 4),
        ([{"message": None}], 0),
        ([], 0),
    ],
)
def test_a_reply_without_usage_is_measured(choices: list[Any], size: int) -> None:
    """Without usage, the bytes of generated text are what an estimate goes by."""
    facts = read_reply(body(choices=choices))
    assert (facts.usage, facts.output_bytes) == (None, size)


def test_an_unknown_form_of_choices_counts_whole() -> None:
    """Choices that are not what they should be are all output; the reply itself is good."""
    assert read_reply(body(choices="strange")).output_bytes == len('"strange"')


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"", "protocol_error"),
        (b"<html>", "protocol_error"),
        (b"[]", "protocol_error"),
        (b"{}", "protocol_error"),
        (b'{"choices":null}', "protocol_error"),
        (b'{"choices":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "protocol_error"),
        (b'{"error":{"message":"CUDA"}}', "error_in_body"),
        (b'{"error":"CUDA","choices":[]}', "error_in_body"),
        (b'{"object":"error","message":"CUDA","type":"x","param":null,"code":40301}', "error_in_body"),
        (b'{"object":"error","choices":null,"usage":[]}', "error_in_body"),
        (b'{"error":{},"usage":[]}', "error_in_body"),
        (b'{"choices":[],"usage":', "protocol_error"),
        (b'{"choices":[],"usage":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "protocol_error"),
    ],
)
def test_a_200_that_is_no_completion_fails_the_attempt(content: bytes, outcome: str) -> None:
    """What is no completion, or says error under a 200, is a failure of the backend, never an answer."""
    with pytest.raises(AttemptFailed) as failure:
        read_reply(content)
    assert failure.value.outcome == outcome


def test_error_null_is_no_error() -> None:
    """Some servers always send the field."""
    assert read_reply(body(choices=[CHOICE], error=None)).usage is None


def test_errors_in_their_envelope() -> None:
    """The envelope has OpenAI's four fields and the public text; the operator's detail never leaves."""
    error = InvalidRequest('no "such" field', code="missing_field", param="model", detail="secret")
    envelope = {
        "error": {
            "message": 'no "such" field',
            "type": "invalid_request_error",
            "param": "model",
            "code": "missing_field",
        }
    }
    assert json.loads(error_body(error)) == envelope
    event = error_event(error)
    assert event == b"data: " + error_body(error) + b"\n\n"
    assert event.count(b"\n") == 2
    assert b"secret" not in event


def test_a_text_with_line_breaks_stays_one_event() -> None:
    """Line breaks are escaped, so a text cannot end an event early."""
    assert error_event(Overloaded("a\n\nb\r\r")).count(b"\n") == 2
