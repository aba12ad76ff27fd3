"""Whole answers of Gemini as chat completions, and what whole and streamed ones have in common.

Sources: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse,
https://ai.google.dev/api/generate-content#FinishReason.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.clock import wall
from gateway.dialects import form
from gateway.dialects.gemini.errors import failure_of
from gateway.dialects.gemini.ids import made_id
from gateway.dialects.gemini.schema import (
    Candidate,
    Logprobs,
    Response,
    Token,
    ToldCall,
    ToldPart,
    UsageMetadata,
    decode_response,
)
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.errors import AttemptFailed
from gateway.model import Usage

_FINISHES: Final = MappingProxyType({"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"})
_BROKEN: Final = frozenset(
    {
        "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE", "OTHER", "FINISH_REASON_UNSPECIFIED",
    }
)  # fmt: skip
"""Ends in which the model failed. Every other one that is not known here is a filter's, of which there are many."""


_COUNT_MAX = 1 << 39  # far above any call; a larger figure is the backend's fault


class _ExtraOfGoogle(msgspec.Struct):
    thought_signature: str


class _Extra(msgspec.Struct):
    google: _ExtraOfGoogle


class _TokenForm(msgspec.Struct):
    """A token as chat completions tell it, without the tokens beside it."""

    token: str
    logprob: float
    bytes: list[int]


class _PlaceForm(_TokenForm):
    """The token that was chosen, and the likeliest ones."""

    top_logprobs: list[_TokenForm]


class _LogprobsForm(msgspec.Struct):
    content: list[_PlaceForm]
    refusal: None = None


_encode = msgspec.json.Encoder().encode


def read_whole(body: bytes) -> tuple[bytes, ReplyFacts]:
    """The answer as a chat completion. Raises AttemptFailed where it is none."""
    try:
        response = decode_response(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AttemptFailed("protocol_error", f"the body of a 200 is no answer of Gemini: {error}") from None
    if response.error is not None:
        raise failure_of(response.error)
    told = form.encode_completion(
        form.Completion(
            id=completion_id(response),
            created=int(wall()),
            model=response.model_version or "",
            choices=[_choice(candidate, place) for place, candidate in enumerate(candidates_of(response))],
            usage=usage_of(response.usage_metadata) if response.usage_metadata is not None else msgspec.UNSET,
        )
    )
    return told, read_reply(told)


def completion_id(response: Response) -> str:
    """The id of the answer."""
    return f"chatcmpl-{response.response_id or secrets.token_hex(14)}"


def candidates_of(response: Response) -> list[Candidate]:
    """The answers; to a prompt that was blocked one that says nothing. Raises AttemptFailed where there is none."""
    if response.candidates:
        return response.candidates
    feedback = response.prompt_feedback
    if feedback is None or feedback.block_reason is None:
        raise AttemptFailed("protocol_error", "an answer without candidates")
    return [Candidate(finish_reason=f"BLOCKED_{feedback.block_reason}")]


def used_of(told: UsageMetadata) -> Usage:
    """The usage so far: input with what was cached and what tools brought, output with thoughts."""
    given = _count(told.prompt_token_count) + _count(told.tool_use_prompt_token_count)
    return Usage(
        input_tokens=given,
        cached_input_tokens=min(_count(told.cached_content_token_count), given),
        output_tokens=_count(told.candidates_token_count) + _count(told.thoughts_token_count),
    )


def usage_of(told: UsageMetadata) -> form.UsageForm:
    """The same as ``usage`` of a chat completion."""
    used = used_of(told)
    return form.UsageForm(
        prompt_tokens=used.input_tokens,
        completion_tokens=used.output_tokens,
        total_tokens=used.input_tokens + used.output_tokens,
        prompt_tokens_details=form.InputDetails(cached_tokens=used.cached_input_tokens),
        completion_tokens_details=form.OutputDetails(reasoning_tokens=_count(told.thoughts_token_count)),
    )


def _count(told: int | None) -> int:
    return min(max(told or 0, 0), _COUNT_MAX)


def finish_of(reason: str, *, has_calls: bool) -> str:
    """``finish_reason`` of an answer that ended for ``reason``."""
    if has_calls and reason in ("STOP", *_BROKEN):
        return "tool_calls"
    if reason in _BROKEN:
        return "stop"
    return _FINISHES.get(reason, "content_filter")


def has_failed(reason: str) -> bool:
    """Whether the model failed; where it has said nothing by then, there is no answer."""
    return reason in _BROKEN


def failed_answer(reason: str) -> AttemptFailed:
    """An answer that says nothing because the model failed."""
    return AttemptFailed("error_in_body", f"the answer ended with {reason[:64]} and nothing in it")


def call_of(call: ToldCall, index: int, signature: str | None) -> form.ToldCall:
    """A function call, whole: Gemini tells it at once."""
    return form.ToldCall(
        index=index,
        id=call.id or made_id(),
        type="function",
        function=form.ToldFunction(name=call.name, arguments=_compact(call.args)),
        extra_content=msgspec.UNSET if signature is None else extra_of(signature),
    )


def extra_of(signature: str) -> msgspec.Raw:
    """``extra_content`` with a signature."""
    return msgspec.Raw(_encode(_Extra(_ExtraOfGoogle(signature))))


def logprobs_of(told: Logprobs) -> msgspec.Raw:
    """``logprobs`` of a choice."""
    chosen = told.chosen_candidates or []
    likely = told.top_candidates or []
    content = [
        _PlaceForm(*_token(token), top_logprobs=_tokens(likely[at].candidates or ()) if at < len(likely) else [])
        for at, token in enumerate(chosen)
    ]
    return msgspec.Raw(_encode(_LogprobsForm(content=content)))


def _tokens(tokens: Iterable[Token]) -> list[_TokenForm]:
    return [_TokenForm(*_token(token)) for token in tokens]


def _token(told: Token) -> tuple[str, float, list[int]]:
    token = told.token or ""
    return token, -9999.0 if told.log_probability is None else told.log_probability, list(token.encode())


def _compact(args: msgspec.Raw) -> str:
    text = bytes(args)
    return "{}" if text == b"null" else msgspec.json.format(text, indent=-1).decode()


def _choice(candidate: Candidate, place: int) -> form.Choice:
    """A whole answer. Raises AttemptFailed where it says nothing because the model failed."""
    message = form.Told(role="assistant", content=None)
    parts = candidate.content.parts if candidate.content is not None else None
    _gather(parts or (), message)
    reason = candidate.finish_reason or "STOP"
    has_calls = bool(message.tool_calls)
    if has_failed(reason) and not has_calls and not message.content:
        raise failed_answer(reason)
    if message.content is None and not has_calls:
        message.content = ""
    return form.Choice(
        index=candidate.index if candidate.index is not None else place,
        message=message,
        logprobs=form.NULL if candidate.logprobs_result is None else logprobs_of(candidate.logprobs_result),
        finish_reason=finish_of(reason, has_calls=has_calls),
    )


def _gather(parts: Iterable[ToldPart], message: form.Told) -> None:
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[form.ToldCall] = []
    for part in parts:
        if part.function_call is not None:
            calls.append(call_of(part.function_call, len(calls), part.thought_signature))
            continue
        if part.thought_signature is not None:
            message.extra_content = extra_of(part.thought_signature)
        if part.text:
            (thoughts if part.thought else text).append(part.text)
    if text:
        message.content = "".join(text)
    if thoughts:
        message.reasoning_content = "".join(thoughts)
    if calls:
        for call in calls:
            call.index = msgspec.UNSET  # only pieces of a stream have one
        message.tool_calls = calls
