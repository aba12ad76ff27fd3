"""A response: the object that a whole answer is, and that a stream begins and ends with. Pure.

Source: https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.dialects import form
from gateway.dialects.openai.usage import ABSENT
from gateway.dialects.responses.items import PackedReasoning, pack_reasoning
from gateway.dialects.responses.read import Asked
from gateway.errors import UpstreamFailed

Item = dict[str, Any]

_ECHOED: Final[tuple[tuple[str, Any], ...]] = (
    ("instructions", None),
    ("max_output_tokens", None),
    ("metadata", {}),
    ("parallel_tool_calls", True),
    ("previous_response_id", None),
    ("reasoning", {"effort": None, "summary": None}),
    ("service_tier", "default"),
    ("temperature", 1.0),
    ("text", {"format": {"type": "text"}}),
    ("tool_choice", "auto"),
    ("tools", []),
    ("top_logprobs", 0),
    ("top_p", 1.0),
    ("truncation", "disabled"),
    ("user", None),
    ("safety_identifier", None),
    ("prompt_cache_key", None),
)
"""What a response says of its request, with what it says where that says nothing."""

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Envelope:
    """What is the same in every event of one response: its id, its time, its request's fields."""

    def __init__(self, asked: Asked, response_id: str, created_at: int) -> None:
        self.id = response_id
        self.suffix = response_id.removeprefix("resp_")
        self.include_reasoning = "reasoning.encrypted_content" in asked.include
        self.include_logprobs = "message.output_text.logprobs" in asked.include
        fields = asked.fields
        self._members: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": created_at,
            "model": asked.model,
            "background": False,
            "store": asked.store,
        }
        for name, default in _ECHOED:
            raw = fields.get(name, ABSENT)
            self._members[name] = default if raw == ABSENT else raw

    def item_id(self, kind: str, place: int) -> str:
        """The id of the item at this place: ``msg``, ``fc`` or ``rs`` is its kind."""
        return f"{kind}_{self.suffix}{place:02x}"

    def response(self, status: str, output: list[Item], **members: Any) -> dict[str, Any]:
        """The object."""
        return {
            **self._members,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "usage": None,
            **members,
        }

    def ended(self, output: list[Item], finish: str | None, usage: dict[str, Any] | None) -> dict[str, Any]:
        """The object of an answer that is all there."""
        reason = _INCOMPLETE.get(finish or "")
        if reason is None:
            return self.response("completed", output, usage=usage)
        return self.response("incomplete", output, usage=usage, incomplete_details={"reason": reason})

    def failed(self, output: list[Item], code: str, message: str) -> dict[str, Any]:
        """The object of an answer that broke off."""
        return self.response("failed", output, error={"code": code, "message": message})

    def reasoning(self, place: int, reasoning: PackedReasoning) -> Item:
        """An item of reasoning; what its backend wants to see again goes with it, for those who send it back."""
        text = reasoning.text or "".join(
            block.thinking for block in reasoning.blocks if isinstance(block, form.Thinking)
        )
        return {
            "id": self.item_id("rs", place),
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": text}] if text else [],
            "encrypted_content": pack_reasoning(reasoning),
            "status": "completed",
        }

    def message(self, place: int, parts: list[Item], status: str = "completed") -> Item:
        """A message of the assistant."""
        return {
            "id": self.item_id("msg", place),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": parts,
        }

    def call(self, place: int, call: form.ToldCall, arguments: str, status: str = "completed") -> Item:
        """A function that is to be called."""
        function = call.function or form.ToldFunction()
        item: Item = {
            "id": self.item_id("fc", place),
            "type": "function_call",
            "call_id": call.id or self.item_id("call", place),
            "name": function.name or "",
            "arguments": arguments,
            "status": status,
        }
        if call.extra_content is not msgspec.UNSET:
            item["extra_content"] = call.extra_content
        return item

    def shown(self, output: list[Item]) -> list[Item]:
        """The items as the caller is told of them: reasoning in its packed form only where that was asked for."""
        if self.include_reasoning:
            return output
        return [{**item, "encrypted_content": None} if item["type"] == "reasoning" else item for item in output]


def text_part(text: str, logprobs: list[Any] | None = None) -> Item:
    """A part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def refusal_part(text: str) -> Item:
    """A part of a message that is no answer."""
    return {"type": "refusal", "refusal": text}


def usage_of(usage: form.UsageForm | form.Unset | None) -> dict[str, Any] | None:
    """``usage``; None where none was reported."""
    if not isinstance(usage, form.UsageForm):
        return None
    given, made = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = given.cached_tokens if isinstance(given, form.InputDetails) else None
    written = given.cache_creation_tokens if isinstance(given, form.InputDetails) else None
    reasoning = made.reasoning_tokens if isinstance(made, form.OutputDetails) else None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": written or 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning or 0},
        "total_tokens": usage.total_tokens or usage.prompt_tokens + usage.completion_tokens,
    }


def logprobs_of(raw: msgspec.Raw | form.Unset | None) -> list[Any]:
    """The log probabilities of a choice, which look alike in both dialects."""
    if not isinstance(raw, msgspec.Raw) or raw == ABSENT:
        return []
    try:
        return _decode_logprobs(raw).content or []
    except (msgspec.DecodeError, RecursionError):
        return []


class _Logprobs(msgspec.Struct):
    content: list[Any] | None = None


_decode_logprobs = msgspec.json.Decoder(_Logprobs).decode


def whole_response(envelope: Envelope, body: bytes) -> dict[str, Any]:
    """The response that a chat completion is. Raises UpstreamFailed where it is none."""
    try:
        completion = form.decode_completion(body)
        choice = completion.choices[0]
    except (msgspec.DecodeError, RecursionError, IndexError) as error:
        raise UpstreamFailed("The model backend failed to answer.", detail=f"no chat completion: {error}") from None
    told = choice.message if isinstance(choice.message, form.Told) else form.Told()
    output = list(_output(envelope, choice, told))
    return envelope.ended(output, choice.finish_reason, usage_of(completion.usage))


def _output(envelope: Envelope, choice: form.Choice, told: form.Told) -> Iterator[Item]:
    place = 0
    reasoning = PackedReasoning(text=told.reasoning_content or "", blocks=told.thinking_blocks or [])
    if reasoning.text or reasoning.blocks:
        yield envelope.reasoning(place, reasoning)
        place += 1
    parts: list[Item] = []
    if told.content:
        parts.append(text_part(told.content, logprobs_of(choice.logprobs) if envelope.include_logprobs else None))
    if told.refusal:
        parts.append(refusal_part(told.refusal))
    calls = told.tool_calls or []
    if parts or not calls:
        yield envelope.message(place, parts)
        place += 1
    for call in calls:
        arguments = call.function.arguments if isinstance(call.function, form.ToldFunction) else ""
        yield envelope.call(place, call, arguments or "")
        place += 1
