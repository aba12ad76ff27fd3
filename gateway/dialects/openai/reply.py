"""What the gateway reads of a whole (not streamed) chat completion: usage, size of the output, or an error."""

from __future__ import annotations

import msgspec

from gateway.dialects.openai.usage import ABSENT, read_usage, text_bytes
from gateway.errors import AttemptFailed
from gateway.model import Usage


class _Message(msgspec.Struct):
    content: msgspec.Raw = ABSENT
    reasoning_content: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct):
    message: _Message | None = None


class _Reply(msgspec.Struct):
    choices: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class ReplyFacts(msgspec.Struct, frozen=True):
    """``usage`` is None where the backend reported none; ``output_bytes`` is then what an estimate goes by."""

    usage: Usage | None
    output_bytes: int = 0


_decode = msgspec.json.Decoder(_Reply).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


def read_reply(body: bytes) -> ReplyFacts:
    """Read a body that came with status 200. Raises AttemptFailed if it is no completion."""
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AttemptFailed("protocol_error", f"the body of a 200 is no chat completion: {error}") from None
    if reply.error != ABSENT:
        raise AttemptFailed("error_in_body", "a 200 whose body is an error")
    if reply.choices == ABSENT:
        raise AttemptFailed("protocol_error", "the body of a 200 has no choices")
    usage = read_usage(reply.usage)
    return ReplyFacts(usage) if usage is not None else ReplyFacts(None, _output_bytes(reply.choices))


def _output_bytes(choices: msgspec.Raw) -> int:
    try:
        messages = [choice.message for choice in _decode_choices(choices)]
    except (msgspec.DecodeError, RecursionError):
        return len(choices)  # an unknown form: all of it is output
    return sum(
        text_bytes(message.content, message.reasoning_content, message.tool_calls)
        for message in messages
        if message is not None
    )
