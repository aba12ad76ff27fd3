"""A whole answer of Converse as a chat completion, and what both kinds of answers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import uuid4

import msgspec
from msgspec import UNSET

from gateway.clock import wall
from gateway.dialects import form
from gateway.dialects.bedrock import schema
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.errors import AttemptFailed

_FINISH_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
MALFORMED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Stop reasons of answers that nobody can use."""

SERVER_TOOL_USE: Final = "server_tool_use"
"""The type of a call that is not the caller's to make."""


def new_id() -> str:
    """An id for an answer: the service gives it none."""
    return f"chatcmpl-{uuid4().hex}"


def finish_reason(stop_reason: str) -> str:
    """Why the answer ended; a reason that is not known is an end like another."""
    return _FINISH_REASONS.get(stop_reason, "stop")


def stop_sequence(fields: schema.ModelFields | None) -> str | msgspec.UnsetType:
    """The sequence that ended the answer, where the model says so."""
    return UNSET if fields is None or fields.stop_sequence is None else fields.stop_sequence


def usage_form(usage: schema.TokenUsage) -> form.UsageForm:
    """What was used: Converse counts input that a cache had or got apart, chat counts all of it."""
    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    given = usage.input_tokens + (read or 0) + (written or 0)
    details = None
    if read is not None or written is not None:
        details = form.InputDetails(cached_tokens=read or 0, cache_creation_tokens=written or 0)
    return form.UsageForm(
        prompt_tokens=given,
        completion_tokens=usage.output_tokens,
        total_tokens=given + usage.output_tokens,
        prompt_tokens_details=UNSET if details is None else details,
    )


def read_answer(body: bytes, model: str) -> tuple[bytes, ReplyFacts]:
    """The chat completion and what it says. Raises AttemptFailed where there is no answer in it."""
    try:
        answer = schema.decode_answer(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AttemptFailed("protocol_error", f"the body of a 200 is no answer of Converse: {error}") from None
    if answer.stop_reason in MALFORMED:
        raise AttemptFailed("error_in_body", f"an answer that ends with {answer.stop_reason}")
    completion = form.Completion(
        id=new_id(),
        created=int(wall()),
        model=model,
        choices=[
            form.Choice(
                message=_message(answer.output.message),
                finish_reason=finish_reason(answer.stop_reason),
                stop_sequence=stop_sequence(answer.additional_model_response_fields),
            )
        ],
        usage=UNSET if answer.usage is None else usage_form(answer.usage),
    )
    told = form.encode_completion(completion)
    return told, read_reply(told)


def _message(message: schema.ToldMessage) -> form.Told:
    texts: list[str] = []
    thoughts: list[form.ThinkingBlock] = []
    calls: list[form.ToldCall] = []
    for block in message.content:
        if block.text is not None:
            texts.append(block.text)
        elif block.citations_content is not None:
            texts += [piece.text for piece in block.citations_content.content if piece.text is not None]
        elif block.reasoning_content is not None:
            thoughts += _thinking(block.reasoning_content)
        elif block.tool_use is not None and block.tool_use.type != SERVER_TOOL_USE:
            calls.append(_call(block.tool_use))
    reasoning = "".join(each.thinking for each in thoughts if isinstance(each, form.Thinking))
    return form.Told(
        role="assistant",
        content="".join(texts) if texts else None,
        reasoning_content=reasoning or UNSET,
        thinking_blocks=thoughts or UNSET,
        tool_calls=calls or UNSET,
    )


def _thinking(block: schema.ToldReasoning) -> list[form.ThinkingBlock]:
    if block.redacted_content is not None:
        return [form.RedactedThinking(data=block.redacted_content)]
    text = block.reasoning_text
    return [] if text is None else [form.Thinking(thinking=text.text, signature=text.signature or "")]


def _call(use: schema.ToldToolUse) -> form.ToldCall:
    arguments = bytes(use.input).decode()
    return form.ToldCall(
        id=use.tool_use_id, type="function", function=form.ToldFunction(name=use.name, arguments=arguments)
    )
