"""A chat completion as Messages tells it: what a whole answer and a stream have in common, and the whole one. Pure.

Source: https://platform.claude.com/docs/en/api/messages (the response)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import UNSET

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.errors import Detail, Envelope, kind_of
from gateway.errors import UpstreamFailed

_STOP_REASONS: Final = MappingProxyType(
    {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use",
     "content_filter": "refusal"}
)  # fmt: skip
_REFUSED = "The model backend refused the request."
_TEXT_CHARS_MAX = 4096  # of a refusal that is no error of the chat dialect
_NO_INPUT = msgspec.Raw(b"{}")
_is_object = re.compile(r"\s*\{").match


class ChatError(msgspec.Struct):
    """What an error of the chat dialect says."""

    message: str | None = None
    type: str | None = None


class Answer(msgspec.Struct, kw_only=True):
    """What is read of a chat completion, or of an event of a streamed one; of the usage, only where it is looked at."""

    id: str | None = None
    model: str | None = None
    choices: list[form.Choice] | None = None
    usage: msgspec.Raw | msgspec.UnsetType = UNSET
    error: ChatError | str | None = None
    message: str | None = None


class _Usage(form.UsageForm, kw_only=True):
    prompt_cache_hit_tokens: int | None = None  # DeepSeek


decode_answer = msgspec.json.Decoder(Answer).decode
_decode_usage: Callable[[msgspec.Raw], _Usage | None] = msgspec.json.Decoder(_Usage | None).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def message_id(completion_id: str) -> str:
    """The id of an answer as Messages writes one."""
    return completion_id if completion_id.startswith("msg_") else "msg_" + completion_id.removeprefix("chatcmpl-")


def call_id(completion_id: str, place: int) -> str:
    """An id for a call that has none: its own in any conversation."""
    return f"toolu_{message_id(completion_id).removeprefix('msg_')}_{place}"


def read_usage(raw: msgspec.Raw | msgspec.UnsetType) -> form.UsageForm | None:
    """The usage that is reported; None for none, or one that makes no sense: the answer itself is still good."""
    if raw is UNSET:
        return None
    try:
        usage = _decode_usage(raw)
    except msgspec.DecodeError:
        return None
    if usage is not None and usage.prompt_cache_hit_tokens and not usage.prompt_tokens_details:
        usage.prompt_tokens_details = form.InputDetails(cached_tokens=usage.prompt_cache_hit_tokens)
    return usage


def usage_of(usage: form.UsageForm) -> schema.Usage:
    """The usage, of which Messages counts what was cached apart."""
    given, told = usage.prompt_tokens_details, usage.completion_tokens_details
    details = given if isinstance(given, form.InputDetails) else form.InputDetails()
    read = min(details.cached_tokens or 0, usage.prompt_tokens)
    written = min(details.cache_creation_tokens or 0, usage.prompt_tokens - read)
    thought = told.reasoning_tokens if isinstance(told, form.OutputDetails) else None
    return schema.Usage(
        input_tokens=usage.prompt_tokens - read - written,
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        output_tokens_details=UNSET if thought is None else schema.OutputDetails(thinking_tokens=thought),
    )


def stop_of(choice: form.Choice, *, called: bool, stops: frozenset[str]) -> tuple[str, str | None]:
    """Why an answer ended, and the stop sequence that ended it. ``called``: it has calls of tools.

    Of the sequence, servers tell as ``stop_sequence`` or ``stop_reason`` (vLLM); one that was not asked for is none.
    """
    if choice.finish_reason == "stop" or choice.finish_reason is None:
        if called:  # as servers say where the request named the tool
            return "tool_use", None
        for ended in (choice.stop_sequence, choice.stop_reason):
            if isinstance(ended, str) and ended in stops:
                return "stop_sequence", ended
    return _STOP_REASONS.get(choice.finish_reason or "", "end_turn"), None


def input_of(arguments: str) -> msgspec.Raw:
    """The input of a call; what is no JSON object is kept as Anthropic's guide to fine-grained streaming has it.

    Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    """
    if not arguments.strip():
        return _NO_INPUT
    if _is_object(arguments):
        try:
            _decode_object(arguments)
            return msgspec.Raw(arguments.encode())
        except (msgspec.DecodeError, RecursionError):
            pass
    return msgspec.Raw(_encode({"INVALID_JSON": arguments}))


def thoughts_of(told: form.Told) -> Iterable[form.ThinkingBlock]:
    """The reasoning in a message or a piece of one; where it is told in two ways, once."""
    if isinstance(told.thinking_blocks, list) and told.thinking_blocks:
        return told.thinking_blocks
    for text in (told.reasoning_content, told.reasoning):
        if isinstance(text, str) and text:
            return (form.Thinking(thinking=text),)
    return ()


def whole_message(body: bytes, stops: frozenset[str]) -> bytes:
    """The answer to a request that is not streamed. Raises UpstreamFailed where ``body`` is no chat completion."""
    try:
        completion = decode_answer(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFailed("The model backend failed to answer.", detail=str(error)) from None
    choice = completion.choices[0] if completion.choices else form.Choice()
    id_ = completion.id or ""
    told = choice.message if isinstance(choice.message, form.Told) else form.Told()
    content = _content(told, id_)
    called = any(block.type == "tool_use" for block in content)
    reason, sequence = stop_of(choice, called=called, stops=stops)
    usage = read_usage(completion.usage) or form.UsageForm()
    return _encode(
        schema.Message(
            id=message_id(id_),
            model=completion.model or "",
            content=content,
            stop_reason=reason,
            stop_sequence=sequence,
            usage=usage_of(usage),
        )
    )


def _content(told: form.Told, completion_id: str) -> list[schema.ToldBlock]:
    blocks = [thought_block(thought) for thought in thoughts_of(told)]
    blocks += [
        schema.ToldBlock(type="text", text=text)
        for text in (told.content, told.refusal)
        if isinstance(text, str) and text
    ]
    for place, call in enumerate(told.tool_calls if isinstance(told.tool_calls, list) else ()):
        called = call.function if isinstance(call.function, form.ToldFunction) else form.ToldFunction()
        blocks.append(
            schema.ToldBlock(
                type="tool_use",
                id=call.id or call_id(completion_id, place),
                name=called.name or "",
                input=input_of(called.arguments or ""),
            )
        )
    return blocks


def thought_block(thought: form.ThinkingBlock) -> schema.ToldBlock:
    """Reasoning as a block."""
    if isinstance(thought, form.Thinking):
        return schema.ToldBlock(type="thinking", thinking=thought.thinking, signature=thought.signature)
    return schema.ToldBlock(type="redacted_thinking", data=thought.data)


def refusal_told(status: int, body: bytes, request_id: str) -> bytes:
    """A backend's refusal, an error of the chat dialect or any other text, in the envelope of Messages."""
    return _encode(Envelope(Detail(kind_of(status), refusal_text(body)), request_id))


def refusal_text(body: bytes) -> str:
    """What an error of the chat dialect says, in its envelope or not."""
    try:
        told = decode_answer(body)
    except (msgspec.DecodeError, RecursionError):
        return body.decode("utf-8", "replace").strip()[:_TEXT_CHARS_MAX] or _REFUSED
    error = chat_error(told.error) or ChatError()
    return error.message or told.message or _REFUSED


def chat_error(error: ChatError | str | None) -> ChatError | None:
    """An error in its envelope, whose form is not the same everywhere."""
    return ChatError(message=error) if isinstance(error, str) else error
