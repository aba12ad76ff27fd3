"""A whole answer of Messages as a chat completion; pure.

Source: https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/handling-stop-reasons
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import UNSET

from gateway.clock import wall
from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.usage import counted, told
from gateway.dialects.openai.reply import ReplyFacts
from gateway.errors import AttemptFailed

FINISH_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "pause_turn": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "content_filter",
    }
)
"""By ``stop_reason``; one that is not known is a stop."""

SERVICE_TIERS: Final[Mapping[str, str]] = MappingProxyType({"standard": "default", "priority": "priority"})

_decode = msgspec.json.Decoder(schema.Message).decode


def read_message(body: bytes) -> schema.Message:
    """The answer. Raises AttemptFailed where it is none."""
    try:
        message = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AttemptFailed("protocol_error", f"the body of a 200 is no message: {error}") from None
    if message.type == "error":
        raise AttemptFailed("error_in_body", "a 200 whose body is an error")
    if message.stop_reason is None and not message.content:
        raise AttemptFailed("protocol_error", "the body of a 200 has no content")
    return message


def facts_of(message: schema.Message) -> ReplyFacts:
    """What was used."""
    usage = counted(message.usage)
    return ReplyFacts(usage) if usage is not None else ReplyFacts(None, _output_bytes(message.content))


def completion_of(message: schema.Message) -> form.Completion:
    """The same as a chat completion."""
    said = form.Told(role="assistant", content=None)
    texts: list[str] = []
    thoughts: list[form.ThinkingBlock] = []
    calls: list[form.ToldCall] = []
    for block in message.content:
        if block.type == "text" and block.text:
            texts.append(block.text)
        elif block.type == "thinking":
            thoughts.append(form.Thinking(thinking=block.thinking or "", signature=block.signature or ""))
        elif block.type == "redacted_thinking" and block.data:
            thoughts.append(form.RedactedThinking(data=block.data))
        elif block.type == "tool_use":
            calls.append(_call(block))
    if texts or not calls:
        said.content = "".join(texts)
    reasoning = "".join(thought.thinking for thought in thoughts if isinstance(thought, form.Thinking))
    if reasoning:
        said.reasoning_content = reasoning
    if thoughts:
        said.thinking_blocks = thoughts
    if calls:
        said.tool_calls = calls
    if message.stop_reason == "refusal":
        said.refusal = explanation_of(message.stop_details)
    return _completion(message, said)


def _completion(message: schema.Message, said: form.Told) -> form.Completion:
    usage = counted(message.usage)
    choice = form.Choice(message=said, finish_reason=FINISH_REASONS.get(message.stop_reason or "", "stop"))
    if message.stop_sequence is not None:
        choice.stop_sequence = message.stop_sequence
    completion = form.Completion(id=message.id, created=int(wall()), model=message.model, choices=[choice])
    if usage is not None:
        completion.usage = told(usage)
    tier = message.usage.service_tier if message.usage is not None else None
    if tier and tier in SERVICE_TIERS:
        completion.service_tier = SERVICE_TIERS[tier]
    return completion


def explanation_of(details: schema.StopDetails | schema.Unset | None) -> str | None:
    """Why an answer was refused, as far as it is said."""
    return details.explanation if isinstance(details, schema.StopDetails) else None


def _call(block: schema.ToldBlock) -> form.ToldCall:
    arguments = "{}" if block.input is UNSET else bytes(block.input).decode()
    return form.ToldCall(
        id=block.id or "",
        type="function",
        function=form.ToldFunction(name=block.name or "", arguments=arguments),
    )


def _output_bytes(blocks: list[schema.ToldBlock]) -> int:
    return sum(
        len(block.text or "") + len(block.thinking or "") + (0 if block.input is UNSET else len(block.input))
        for block in blocks
    )
