"""Events of Messages, read by the official client's own accumulator and by rules that it does not check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event  # what ``client.messages.stream`` reads with
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def events_of(data: bytes) -> list[dict[str, Any]]:
    """The data of whole events."""
    lines = [line for line in data.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def deltas(events: Sequence[dict[str, Any]]) -> list[str]:
    """The pieces of the arguments of calls."""
    return [each["delta"]["partial_json"] for each in events if each["type"] == "content_block_delta"]


def accumulated(events: Sequence[dict[str, Any]]) -> Message:
    """The message that the official client makes of a stream; AssertionError where its events are out of order."""
    message: Any = None
    buffers: dict[int, bytes] = {}
    events = [each for each in events if each["type"] != "ping"]  # which the client passes over
    check_order(events)
    for each in events:
        typed = _EVENT.validate_python(each)
        message = accumulate_event(event=typed, current_snapshot=message, json_bufs=buffers)
    return Message.model_validate(message.to_dict())


def check_order(events: Sequence[dict[str, Any]]) -> None:
    """One message, its blocks numbered and one at a time, an end and nothing after it."""
    kinds = [each["type"] for each in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    open_, count = False, 0
    for each in events[1:-2]:
        if each["type"] == "content_block_start":
            assert not open_
            assert each["index"] == count
            open_ = True
        else:
            assert open_
            assert each["index"] == count
            if each["type"] == "content_block_stop":
                open_, count = False, count + 1
            else:
                assert each["type"] == "content_block_delta"
    assert not open_
