"""The body of ``POST /v1/responses``, read into a chat request. Pure.

What a chat has no place for is named in ``Native.beyond``: it passes to a backend that speaks Responses, and nowhere
else. What would reach beyond the caller's own tenant is refused for every backend: items and conversations that
a provider keeps under the gateway's one account.
Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects import form
from gateway.dialects.openai.members import read_members
from gateway.dialects.openai.request import refuse_other_spellings
from gateway.dialects.openai.usage import ABSENT
from gateway.dialects.responses.items import Messages, split_items
from gateway.errors import InvalidRequest
from gateway.model import ChatRequest, Native

_T = TypeVar("_T")

_GOVERNED: Final = frozenset(
    {"model", "input", "instructions", "stream", "max_output_tokens", "previous_response_id", "store", "metadata",
     "conversation", "prompt_variables"}
)  # fmt: skip
_AS_IN_CHAT: Final = frozenset(
    {"temperature", "top_p", "top_logprobs", "parallel_tool_calls", "metadata", "user", "safety_identifier",
     "prompt_cache_key", "prompt_cache_retention", "service_tier", "prompt_variables"}
)  # fmt: skip
_READ_HERE: Final = _GOVERNED - _AS_IN_CHAT | {"stream_options", "include", "background", "truncation"}
_INCLUDED: Final = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})


class _FunctionTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True, kw_only=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw | UnsetType = UNSET
    strict: bool | None = None


class _Chosen(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    name: str


class _Format(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    type: str = "text"
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw | UnsetType = UNSET
    strict: bool | None = None


class _Text(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    format: _Format | None = None
    verbosity: str | None = None


class _Thought(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


_decode_bool = msgspec.json.Decoder(bool | None).decode
_decode_str = msgspec.json.Decoder(str | None).decode
_decode_int = msgspec.json.Decoder(int | None).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_tool = msgspec.json.Decoder(_FunctionTool).decode
_decode_choice = msgspec.json.Decoder(str | _Chosen).decode
_decode_text = msgspec.json.Decoder(_Text | None).decode
_decode_thought = msgspec.json.Decoder(_Thought | None).decode
_decode_names = msgspec.json.Decoder(list[str] | None).decode
_encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct, kw_only=True):
    """What was asked for, before what was said earlier is known."""

    model: str
    fields: dict[str, msgspec.Raw]  # every top-level member of the body
    items: list[msgspec.Raw]  # of ``input``
    previous: str | None  # whose conversation goes on
    store: bool
    stream: bool
    include: frozenset[str]
    body_bytes: int


def read_asked(body: bytes, max_members: int) -> Asked:
    """Read the body as far as it says whose conversation goes on. Raises InvalidRequest naming the field."""
    fields = read_members(body, max_members)
    refuse_other_spellings(fields, _GOVERNED)
    model = _take(fields, "model", _decode_str, "a string")
    if model is None:
        raise InvalidRequest("`model` is required.", code="missing_field", param="model")
    if not model:
        raise InvalidRequest("`model` must not be empty.", param="model")
    said = fields.get("input", ABSENT)
    if said == ABSENT:
        raise InvalidRequest("`input` is required.", code="missing_field", param="input")
    if fields.get("conversation", ABSENT) != ABSENT:
        raise InvalidRequest(
            "`conversation` is not supported: use `previous_response_id`.",
            code="unsupported_field",
            param="conversation",
        )
    if _take(fields, "background", _decode_bool, "a boolean"):
        raise InvalidRequest("`background` is not supported.", code="unsupported_field", param="background")
    items = split_items(said)
    for place, item in enumerate(items):
        _refuse_reference(item, f"input[{place}]")
    _refuse_foreign(fields)
    store = _take(fields, "store", _decode_bool, "a boolean")
    return Asked(
        model=model,
        fields=fields,
        items=items,
        previous=_take(fields, "previous_response_id", _decode_str, "a string"),
        store=store is not False,
        stream=bool(_take(fields, "stream", _decode_bool, "a boolean")),
        include=frozenset(_take(fields, "include", _decode_names, "an array of strings") or ()),
        body_bytes=len(body),
    )


class _Kind(msgspec.Struct):
    type: str | None = None
    role: str | None = None


_decode_kind = msgspec.json.Decoder(_Kind).decode


def _refuse_reference(item: msgspec.Raw, name: str) -> None:
    """Raises InvalidRequest for an item that stands for one, or for a file, that the provider keeps for all tenants."""
    try:
        kind = _decode_kind(item)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{name}` must be an object.", code="invalid_type", param=name) from None
    if kind.type == "item_reference" or (kind.type is None and kind.role is None) or _names_a_file(item):
        raise InvalidRequest(f"`{name}` refers to what is not kept here.", code="unsupported_field", param=name)


def _names_a_file(raw: msgspec.Raw) -> bool:
    """Whether anything in it has one of the names by which files are referred to, however it is written."""
    text = bytes(raw)
    if b"file_id" not in text and b"\\u" not in text:
        return False
    left = [msgspec.json.decode(text)]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            if any(each.get(name) is not None for name in ("file_id", "file_ids")):
                return True
            left += each.values()
        elif isinstance(each, list):
            left += each
    return False


def _refuse_foreign(fields: Mapping[str, msgspec.Raw]) -> None:
    """Raises InvalidRequest for tools and prompts by which a caller could reach what the provider keeps for others."""
    if fields.get("prompt", ABSENT) != ABSENT:
        raise InvalidRequest("`prompt` is decided by the scenario.", code="unsupported_field", param="prompt")
    raw = fields.get("tools", ABSENT)
    if raw == ABSENT:
        return
    if bytes(raw).count(b"{") > _OBJECTS_MAX:
        raise InvalidRequest("`tools` has too many members.", code="too_many_items", param="tools")
    try:
        tools = _decode_kinds(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest("`tools` must be an array of objects.", code="invalid_type", param="tools") from None
    if len(tools) > _TOOLS_MAX:
        raise InvalidRequest(f"`tools` has more than {_TOOLS_MAX} items.", code="too_many_items", param="tools")
    for place, tool in enumerate(tools):
        if tool.type not in _OWN_TOOLS:
            param = f"tools[{place}]"
            raise InvalidRequest(
                f"`{param}` is of a type that is not supported.", code="unsupported_field", param=param
            )


_OWN_TOOLS: Final = frozenset({"function", "custom", "web_search", "web_search_preview"})
"""Types of tools that reach nothing which a provider keeps under the gateway's account."""
_TOOLS_MAX: Final = 1024
_OBJECTS_MAX: Final = 100_000
_decode_kinds = msgspec.json.Decoder(list[_Kind]).decode


def read_request(asked: Asked, earlier: Sequence[msgspec.Raw] = ()) -> ChatRequest:
    """The chat request that this amounts to, after the items of the conversation so far. Raises InvalidRequest."""
    beyond: list[str] = []
    chat: dict[str, msgspec.Raw | bytes] = {"model": msgspec.Raw(_encode(asked.model))}
    chat["messages"] = _messages(asked, earlier, beyond)
    for name, raw in asked.fields.items():
        if raw == ABSENT or name in _READ_HERE:
            continue
        if name in _AS_IN_CHAT:
            chat[name] = raw
        elif name in _TAKERS:
            _TAKERS[name](raw, chat, beyond)
        else:
            beyond.append(name[:256])
    if bytes(asked.fields.get("truncation", b'"disabled"')) not in (b'"disabled"', b"null"):
        beyond.append("truncation")
    beyond += [f"include[{each[:64]}]" for each in sorted(asked.include - _INCLUDED)]
    if "message.output_text.logprobs" in asked.include or "top_logprobs" in chat:
        chat["logprobs"] = b"true"
    if asked.stream:
        chat["stream"] = b"true"
    limit = _limit(asked.fields)
    if limit is not None:
        chat["max_completion_tokens"] = b"%d" % limit
    native = dict(asked.fields)
    if asked.previous is not None:
        del native["previous_response_id"]
        native["input"] = msgspec.Raw(_encode([*earlier, *asked.items]))
    return ChatRequest(
        model=asked.model,
        fields=chat,
        stream=asked.stream,
        include_usage=asked.stream,
        max_output_tokens=limit,
        body_bytes=asked.body_bytes,
        native=Native(dialect="responses", fields=native, chat=chat, beyond=tuple(beyond)),
    )


def _messages(asked: Asked, earlier: Sequence[msgspec.Raw], beyond: list[str]) -> bytes:
    read = Messages()
    instructions = _take(asked.fields, "instructions", _decode_str, "a string")
    if instructions:
        read.messages.append(form.Message(role="system", content=instructions))
    read.add(earlier, "previous_response_id.items")
    read.add(asked.items, "input")
    messages = [each for each in read.messages if each.content is not None or each.tool_calls or each.refusal]
    beyond += read.beyond
    if not messages and not beyond:
        raise InvalidRequest("`input` must not be empty.", param="input")
    return _encode(messages)


def _limit(fields: Mapping[str, msgspec.Raw]) -> int | None:
    limit = _take(fields, "max_output_tokens", _decode_int, "an integer")
    if limit is not None and limit < 1:
        raise InvalidRequest("`max_output_tokens` must be at least 1.", param="max_output_tokens")
    return limit


_Fields = dict[str, msgspec.Raw | bytes]


def _take_tools(raw: msgspec.Raw, chat: _Fields, beyond: list[str]) -> None:
    try:
        given = _decode_raws(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest("`tools` must be an array.", code="invalid_type", param="tools") from None
    tools = list(_tools(given, beyond))
    if tools:
        chat["tools"] = _encode(tools)


def _tools(given: Sequence[msgspec.Raw], beyond: list[str]) -> Iterator[form.Tool]:
    for place, each in enumerate(given):
        try:
            tool = _decode_tool(each)
        except (msgspec.DecodeError, RecursionError):
            beyond.append(f"tools[{place}]")
            continue
        yield form.Tool(
            function=form.FunctionSpec(
                name=tool.name, description=tool.description, parameters=form.given(tool.parameters), strict=tool.strict
            )
        )


def _take_choice(raw: msgspec.Raw, chat: _Fields, beyond: list[str]) -> None:
    try:
        choice = _decode_choice(raw)
    except (msgspec.DecodeError, RecursionError):
        beyond.append("tool_choice")
        return
    chat["tool_choice"] = _encode(
        choice if isinstance(choice, str) else form.NamedChoice(function=form.Named(name=choice.name))
    )


def _take_text(raw: msgspec.Raw, chat: _Fields, beyond: list[str]) -> None:
    try:
        text = _decode_text(raw)
    except (msgspec.DecodeError, RecursionError):
        beyond.append("text")
        return
    if text is None:
        return
    if text.verbosity is not None:
        chat["verbosity"] = _encode(text.verbosity)
    wanted = text.format
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        chat["response_format"] = b'{"type":"json_object"}'
    elif wanted.type == "json_schema" and wanted.name is not None:
        schema = form.SchemaFormat(
            name=wanted.name, description=wanted.description, schema=form.given(wanted.schema), strict=wanted.strict
        )
        chat["response_format"] = _encode(form.AnswerFormat(type="json_schema", json_schema=schema))
    else:
        beyond.append("text.format")


def _take_thought(raw: msgspec.Raw, chat: _Fields, beyond: list[str]) -> None:
    try:
        thought = _decode_thought(raw)
    except (msgspec.DecodeError, RecursionError):
        beyond.append("reasoning")
        return
    if thought is not None and thought.effort is not None:
        chat["reasoning_effort"] = _encode(thought.effort)


_TAKERS: Final[Mapping[str, Callable[[msgspec.Raw, _Fields, list[str]], None]]] = {
    "tools": _take_tools,
    "tool_choice": _take_choice,
    "text": _take_text,
    "reasoning": _take_thought,
}


def _take(
    fields: Mapping[str, msgspec.Raw], name: str, decode: Callable[[msgspec.Raw], _T | None], expected: str
) -> _T | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{name}` must be {expected}.", code="invalid_type", param=name) from None
