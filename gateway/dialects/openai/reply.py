"""What the gateway reads of a whole (not streamed) chat completion: usage, size of the output, or an error."""

from __future__ import annotations

import msgspec

from gateway.dialects.openai.usage import ABSENT, ERROR_OBJECT, ReportedUsage, text_bytes
from gateway.errors import AttemptFailed
from gateway.model import Usage


class _Message(msgspec.Struct):
    content: msgspec.Raw = ABSENT
    reasoning_content: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct):
    message: _Message | None = None


class _Loose(msgspec.Struct, gc=False):
    choices: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class _Reply(_Loose, gc=False):
    usage: ReportedUsage | None = None


class _NoReply(msgspec.Struct):
    object: msgspec.Raw = ABSENT


class ReplyFacts(msgspec.Struct, frozen=True):
    """``usage`` is None where the backend reported none; ``output_bytes`` is then what an estimate goes by."""

    usage: Usage | None
    output_bytes: int = 0


_decode = msgspec.json.Decoder(_Reply).decode
_decode_no_reply = msgspec.json.Decoder(_NoReply).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


def read_reply(body: bytes) -> ReplyFacts:
    """Read a body that came with status 200. Raises AttemptFailed if it is no completion.

    Usage of a form that makes no sense is none: the reply itself is still good. Text is not looked at, so what is no
    UTF-8 passes as it came.
    """
    try:
        reply = _decode(body)
    except msgspec.ValidationError:
        reply = _read_without_usage(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_completion(error) from None
    if reply.error is not ABSENT and reply.error != ABSENT:
        raise AttemptFailed("error_in_body", "a 200 whose body is an error")
    if reply.choices is ABSENT or reply.choices == ABSENT:
        if _decode_no_reply(body).object == ERROR_OBJECT:
            raise AttemptFailed("error_in_body", "a 200 whose body is an error object")
        raise AttemptFailed("protocol_error", "the body of a 200 has no choices")
    usage = None if reply.usage is None else reply.usage.to_usage()
    return ReplyFacts(None, _output_bytes(reply.choices)) if usage is None else ReplyFacts(usage)


def _read_without_usage(body: bytes) -> _Reply:
    try:
        loose = _decode_loose(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_completion(error) from None
    return _Reply(choices=loose.choices, error=loose.error)


def _no_completion(error: Exception) -> AttemptFailed:
    return AttemptFailed("protocol_error", f"the body of a 200 is no chat completion: {error}")


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
