"""What answers beside chats report of tokens, in every form of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.openai.operations import encode_operation, read_answer, read_operation
from gateway.dialects.openai.passing import PassingEvents
from gateway.errors import AttemptFailed
from gateway.model import Backend, Operation, Origin, Usage


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"usage": {"prompt_tokens": 3, "total_tokens": 3}}, Usage(input_tokens=3)),
        ({"usage": {"total_tokens": 4}}, Usage(input_tokens=4)),
        ({"usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}, Usage(input_tokens=3, output_tokens=2)),
        (
            {"usage": {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}},
            Usage(input_tokens=3, output_tokens=2, cached_input_tokens=1),
        ),
        ({"meta": {"billed_units": {"input_tokens": 7.0}}}, Usage(input_tokens=7)),
        ({"meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 8}}}, Usage(input_tokens=8)),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"usage": {"type": "duration", "seconds": 3}}, None),
        ({"usage": {"prompt_tokens": -1}}, None),
        ({"usage": {"prompt_tokens": "many"}}, None),
        ({"usage": None}, None),
        ({}, None),
    ],
)
def test_usage(members: dict[str, Any], expected: Usage | None) -> None:
    """Tokens alone, and only those that make sense."""
    assert read_answer("rerank", json.dumps({"results": [], **members}).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"error":{}}', b'{"object":"error"}', b'{"data":null}'])
@pytest.mark.parametrize("operation", ["embeddings", "images"])
def test_what_is_no_answer(operation: Operation, body: bytes) -> None:
    """Fails the attempt."""
    with pytest.raises(AttemptFailed):
        read_answer(operation, body)


def test_all_fields_leave_as_they_came() -> None:
    """But for the model, and those that the backend does not take."""
    body = b'{"input" : "\\u00e9" , "model":"m","user":"u","dimensions":1e2}'
    origin = Origin(scheme="http", host="h", port=80)
    backend = Backend(name="b", provider="openai", origin=origin, model="real", unsupported_fields=frozenset({"user"}))
    request = read_operation("embeddings", body, 10)
    assert encode_operation(request, backend, request.fields) == b'{"model":"real","input":"\\u00e9","dimensions":1e2}'
    assert request.max_output_tokens == 0


def test_events_are_passed_and_read() -> None:
    """However they are cut; usage is that of the last, and an error is known."""
    events = (
        b'data: {"type":"transcript.text.delta","delta":"say \\"usage\\": {"}\n\n'
        b'event: x\ndata: {"type":"transcript.text.done","usage":{"input_tokens":2,"output_tokens":3}}\n\n'
    )
    for cut in range(len(events)):
        stream = PassingEvents(1000)
        assert stream.feed(events[:cut]) + stream.feed(events[cut:]) + stream.end() == events
        assert stream.usage == Usage(input_tokens=2, output_tokens=3)
        assert stream.done
        assert not stream.failed
    stream = PassingEvents(1000)
    stream.feed(b'data: {"type":"error","error":{"message":"x"}}\n\n')
    assert stream.failed
