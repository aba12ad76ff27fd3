"""A backend that speaks Messages, called by one who does: request and answer pass as they are. Pure.

Of the request only that is exchanged which the gateway decides: the model, the output limit, and what the scenario has
changed, known by the fields of the chat request that was made of it. Every other member is sent as it came, known or
not.

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.passing_prompts import with_prompt_of
from gateway.dialects.anthropic.request import Native, fitting, max_tokens_of, output, sampling, tools
from gateway.dialects.anthropic.to_messages import Conversation
from gateway.dialects.ask import Ask
from gateway.model import OUTPUT_LIMITS

if TYPE_CHECKING:
    from gateway.model import Backend, ChatRequest

_NOTHING: Final = msgspec.Raw(b"null")
_NO_CONVERSATION: Final = Conversation([], [], [], is_thought_through=True)

_DECIDED: Final = frozenset({"model", "messages", "stream", "stream_options", "prompt_variables", *OUTPUT_LIMITS})
"""Fields of a chat that are told elsewhere, or to no backend."""

_SAMPLING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop": "stop_sequences",
        "user": "metadata",
        "safety_identifier": "metadata",
        "cache_control": "cache_control",
    }
)
"""The member of a Messages request by the field of a chat that says the same."""

_TOOLS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_OUTPUT: Final = frozenset({"reasoning_effort", "thinking", "response_format"})

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_int = msgspec.json.Decoder(int).decode
_decode_choice: Callable[[msgspec.Raw], schema.Choice] = msgspec.json.Decoder(schema.Choice).decode


def passed_body(request: ChatRequest, backend: Backend) -> tuple[bytes, tuple[str, ...]]:
    """The body to send, and what was left out of it. Raises InvalidRequest for what the scenario cannot ask of it."""
    assert request.native is not None, "made of what a caller of Messages wrote"
    native: Native = dict(request.native.fields)
    for name in [name for name in native if name.casefold() in backend.unsupported_fields]:
        del native[name]
    changed = _changed(request, backend)
    asked = {name: raw for name, raw in request.fields.items() if name in changed}
    if changed & _TOOLS:  # each is told with the others
        asked |= {name: raw for name, raw in request.fields.items() if name in _TOOLS}
    ask = Ask(replace(request, fields=asked), backend)
    native["model"] = ask.model
    native["max_tokens"] = max_tokens_of(ask)
    _fit_thinking(native)
    if changed & _SAMPLING.keys():
        _exchange_sampling(native, changed, ask)
    if changed & _TOOLS:
        _exchange_tools(native, changed, ask)
    if changed & _OUTPUT:
        _exchange_output(native, changed, ask)
    if request.fields.get("messages") != request.native.chat.get("messages"):
        native |= with_prompt_of(request, backend)
    return _encode(native), ask.done()


def _changed(request: ChatRequest, backend: Backend) -> set[str]:
    """Fields of the chat that are not as the caller's request had them, or that the backend does not take."""
    assert request.native is not None, "made of what a caller of Messages wrote"
    before, after = request.native.chat, request.fields
    changed = {name for name in {*before, *after} if not _is_same(before.get(name), after.get(name))}
    return {*changed, *(name for name in before if name.casefold() in backend.unsupported_fields)} - _DECIDED


def _is_same(before: msgspec.Raw | bytes | None, after: msgspec.Raw | bytes | None) -> bool:
    return before is after or (before is not None and after is not None and bytes(before) == bytes(after))


def _fit_thinking(native: Native) -> None:
    """A budget for thinking has to stay below the output limit, which may be lower than the caller's."""
    raw = native.get("thinking", _NOTHING)
    if b"budget_tokens" not in bytes(raw):
        return
    members = _members(raw)
    if "budget_tokens" not in members:
        return
    given = _decode_int(members["budget_tokens"])
    budget = fitting(given, native["max_tokens"])
    if budget is None:
        del native["thinking"]
    elif budget != given:
        native["thinking"] = members | {"budget_tokens": budget}


def _exchange_sampling(native: Native, changed: set[str], ask: Ask) -> None:
    told = sampling(ask)
    for field in changed & _SAMPLING.keys():
        name = _SAMPLING[field]
        if name != "metadata":
            native.pop(name, None)
    if changed & {"user", "safety_identifier"}:
        members = _members(native.pop("metadata", _NOTHING))
        members.pop("user_id", None)
        user = told.pop("metadata", None)
        if user is not None:
            members["user_id"] = user.user_id
        if members:
            native["metadata"] = members
    native |= told


def _exchange_tools(native: Native, changed: set[str], ask: Ask) -> None:
    told = tools(ask, _NO_CONVERSATION)
    if "tools" in changed:
        native.pop("tools", None)
    else:
        told.pop("tools", None)
    native.pop("tool_choice", None)
    native |= told


def _exchange_output(native: Native, changed: set[str], ask: Ask) -> None:
    choice = native.get("tool_choice")
    known = {"max_tokens": native["max_tokens"], "tool_choice": _choice(choice)}
    told = output(ask, known, _NO_CONVERSATION)
    new: schema.OutputConfig = told.get("output_config", schema.OutputConfig())
    config = _members(native.pop("output_config", _NOTHING))
    if changed & {"reasoning_effort", "thinking"}:
        config.pop("effort", None)
        native.pop("thinking", None)
        if "thinking" in told:
            native["thinking"] = told["thinking"]
        if new.effort is not None:
            config["effort"] = new.effort
    if "response_format" in changed:
        config.pop("format", None)
        native.pop("output_format", None)
        if new.format is not None:
            config["format"] = new.format
    if config:
        native["output_config"] = config


def _choice(given: object) -> schema.Choice | None:
    if isinstance(given, msgspec.Raw):
        return _decode_choice(given)
    return given if isinstance(given, schema.Choice) else None


def _members(raw: msgspec.Raw) -> Native:
    return {} if raw == _NOTHING else dict(_decode_members(raw))
