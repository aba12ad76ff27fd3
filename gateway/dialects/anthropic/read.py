"""The body of ``POST /v1/messages``, read into a chat request. Pure.

Invariants:
- As with a chat request, a top-level key that is there twice is refused, and so is one that differs from a known one
  by its case alone.
- What a chat has no place for is named in ``Native.beyond``: it passes to a backend that speaks Messages, and nowhere
  else. Marks of what is to be cached and choices of a service tier say nothing to a model, and are not named.
- What reaches into the provider's account that all tenants share (files, containers, workspaces) is refused for every
  backend.
- Of a large body no more than OBJECTS_MAX objects are made.

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.loose import begins, invalid, read_system, read_tools, read_turns
from gateway.dialects.anthropic.turns import messages_of, of_the_account, system_message
from gateway.dialects.openai.members import read_members
from gateway.dialects.openai.request import refuse_other_spellings
from gateway.errors import InvalidRequest
from gateway.model import ChatRequest, Native

_T = TypeVar("_T")

OBJECTS_MAX: Final = 100_000
"""JSON objects in a body of more than 64 kB; the API takes as many messages."""

BETAS_MAX: Final = 32
"""Names in the header ``anthropic-beta``."""

BEYOND_MAX: Final = 64
"""How many places are named of what a chat has no place for."""

VARIABLES: Final = "prompt_variables"
"""The gateway's own field: the variables of a scenario's prompt. It goes to no backend."""

_AS_IN_CHAT: Final = ("max_tokens", "temperature", "top_p", "top_k", VARIABLES)
_READ_HERE: Final = frozenset(
    {"model", "messages", "system", "stream", "stop_sequences", "tools", "tool_choice", "thinking", "output_config",
     "output_format", "metadata"}
)  # fmt: skip
_SAYS_NOTHING: Final = frozenset({"service_tier", "cache_control"})
_OF_THE_ACCOUNT: Final = ("user_profile_id", "workspace_id")
_KNOWN: Final = _READ_HERE.union(_AS_IN_CHAT, _SAYS_NOTHING)

_EFFORTS: Final = MappingProxyType({"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"})
_EFFORT_FROM: Final = ((16_384, "high"), (4_096, "medium"), (0, "low"))
"""The effort that a budget of tokens for thinking stands for, from the largest."""

_SMALL_BYTES = 65_536
_TRUE = msgspec.Raw(b"true")
_NULL = b"null"
_DEFAULTS: Final = MappingProxyType({"speed": b'"standard"'})
_outside_strings = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL).sub
_beta_name = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch

_decode_turns = msgspec.json.Decoder(list[schema.Turn]).decode
_decode_system = msgspec.json.Decoder(str | list[schema.TextBlock]).decode
_decode_tools = msgspec.json.Decoder(list[schema.Tool]).decode
_decode_choice = msgspec.json.Decoder(schema.Choice).decode
_decode_thinking = msgspec.json.Decoder(schema.ThinkingConfig).decode
_decode_format = msgspec.json.Decoder(schema.JsonFormat).decode
_decode_effort = msgspec.json.Decoder(schema.Effort).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_decode_strs = msgspec.json.Decoder(list[str]).decode
_decode_int = msgspec.json.Decoder(int).decode
_decode_bool = msgspec.json.Decoder(bool).decode
_encode = msgspec.json.Encoder().encode


def read_betas(header: str) -> tuple[str, ...]:
    """The names in the header ``anthropic-beta``, each once. Raises InvalidRequest."""
    names = tuple(dict.fromkeys(name.strip() for name in header.split(",") if name.strip()))
    if len(names) > BETAS_MAX or not all(map(_beta_name, names)):
        raise InvalidRequest(
            f"The header `anthropic-beta` must be a list of at most {BETAS_MAX} names.", param="anthropic-beta"
        )
    return names


def read_messages_request(
    body: bytes, max_members: int, betas: tuple[str, ...] = (), *, counts_only: bool = False
) -> ChatRequest:
    """The request. ``counts_only``: of its tokens, which needs no ``max_tokens``. Raises InvalidRequest."""
    fields = read_members(body, max_members)
    if not _KNOWN.issuperset(fields):
        refuse_other_spellings(fields, _KNOWN)
    given = {name: raw for name, raw in fields.items() if len(raw) != 4 or bytes(raw) != _NULL}
    return _Reader(given).request(len(body), betas, counts_only=counts_only)


class _Reader:
    """Reads one body; ``given`` are its members but for nulls."""

    def __init__(self, given: Mapping[str, msgspec.Raw]) -> None:
        self._given = given
        self._chat: dict[str, msgspec.Raw | bytes] = {}
        self._beyond: list[str] = []

    def request(self, body_bytes: int, betas: tuple[str, ...], *, counts_only: bool) -> ChatRequest:
        """See ``read_messages_request``."""
        given, chat = self._given, self._chat
        model = self._required("model", _decode_str, "a string")
        if not model:
            raise InvalidRequest("`model` must not be empty.", param="model")
        limit = None
        if not counts_only or "max_tokens" in given:
            limit = self._required("max_tokens", _decode_int, "an integer")
            if limit < 1:
                raise InvalidRequest("`max_tokens` must be at least 1.", param="max_tokens")
        stream = bool(self._take("stream", _decode_bool, "a boolean"))
        chat["model"] = given["model"]
        chat["messages"] = self._messages(body_bytes)
        if stream:
            chat["stream"] = _TRUE
        for name in _AS_IN_CHAT:
            if name in given:
                chat[name] = given[name]
        self._stop()
        self._tools()
        self._thinking_and_format()
        self._metadata()
        self._others()
        native = {name: raw for name, raw in given.items() if name != VARIABLES}
        return ChatRequest(
            model=model,
            fields=chat,
            stream=stream,
            include_usage=stream,
            max_output_tokens=limit,
            body_bytes=body_bytes,
            native=Native(
                dialect="messages", fields=native, chat=chat, beyond=tuple(self._beyond[:BEYOND_MAX]), betas=betas
            ),
        )

    def _messages(self, body_bytes: int) -> bytes:
        given = self._given
        raw = given.get("messages")
        if raw is None:
            raise _missing("messages")
        if body_bytes > _SMALL_BYTES:
            for name in ("messages", "system", "tools"):
                _check_size(name, given.get(name, msgspec.Raw(b"")))
        said = messages_of(self._strictly("messages", raw, _decode_turns, read_turns), self._beyond.append)
        if not said:
            raise InvalidRequest("`messages` must not be empty.", param="messages")
        if "system" in given:
            system = self._strictly("system", given["system"], _decode_system, read_system)
            first = system_message(system)
            if first is not None:
                said.insert(0, first)
        return _encode(said)

    def _stop(self) -> None:
        if self._take("stop_sequences", _decode_strs, "an array of strings"):
            self._chat["stop"] = self._given["stop_sequences"]

    def _tools(self) -> None:
        raw = self._given.get("tools")
        choice = self._take("tool_choice", _decode_choice, "a choice of tools")
        if raw is None:
            return
        tools = self._strictly("tools", raw, _decode_tools, read_tools)
        if not tools:
            return
        self._chat["tools"] = _encode([_tool(tool) for tool in tools])
        if choice is None:
            return
        self._chat["tool_choice"] = _encode(_choice(choice))
        if not isinstance(choice, schema.NoChoice) and choice.disable_parallel_tool_use:
            self._chat["parallel_tool_calls"] = b"false"

    def _thinking_and_format(self) -> None:
        config = self._members("output_config")
        effort: str | None = None
        thinking = self._take("thinking", _decode_thinking, "a configuration of thinking")
        if isinstance(thinking, schema.EnabledThinking):
            if thinking.budget_tokens < 1:
                raise InvalidRequest("`thinking.budget_tokens` must be at least 1.", param="thinking.budget_tokens")
            effort = next(effort for least, effort in _EFFORT_FROM if thinking.budget_tokens >= least)
        if "effort" in config:
            effort = _EFFORTS[_read(config.pop("effort"), _decode_effort, "output_config.effort", "an effort")]
        if effort is not None:
            self._chat["reasoning_effort"] = _encode(effort)
        wanted = self._take("output_format", _decode_format, "a format with a `schema`")
        if "format" in config:
            wanted = _read(config.pop("format"), _decode_format, "output_config.format", "a format with a `schema`")
        if wanted is not None:
            answer = form.SchemaFormat(name="answer", schema=wanted.schema, strict=True)
            self._chat["response_format"] = _encode(form.AnswerFormat(type="json_schema", json_schema=answer))
        self._beyond += [f"output_config.{name[:64]}" for name in config]

    def _metadata(self) -> None:
        members = self._members("metadata")
        if "user_id" in members:
            raw = members.pop("user_id")
            _read(raw, _decode_str, "metadata.user_id", "a string")
            self._chat["user"] = raw
        self._beyond += [f"metadata.{name[:64]}" for name in members]

    def _others(self) -> None:
        given = self._given
        for name in _OF_THE_ACCOUNT:
            if name in given:
                raise of_the_account(name)
        container = given.get("container")
        if container is not None and (not begins(container, b"{") or "id" in self._members("container")):
            raise of_the_account("container")
        self._beyond += [
            name[:256] for name, raw in given.items() if name not in _KNOWN and _DEFAULTS.get(name) != bytes(raw)
        ]

    def _members(self, name: str) -> dict[str, msgspec.Raw]:
        """The members of an object but for nulls."""
        members = self._take(name, _decode_members, "an object") or {}
        return {member: raw for member, raw in members.items() if bytes(raw) != _NULL}

    def _strictly(
        self,
        name: str,
        raw: msgspec.Raw,
        decode: Callable[[msgspec.Raw], _T],
        loosely: Callable[[msgspec.Raw, Callable[[str], None]], _T],
    ) -> _T:
        """What nearly all requests hold is known whole; others are read piece by piece."""
        try:
            return decode(raw)
        except msgspec.ValidationError as error:
            if not begins(raw, b"["):
                raise invalid(error, name) from None
            return loosely(raw, self._beyond.append)
        except RecursionError:
            raise InvalidRequest(f"`{name}` is nested too deeply.", code="invalid_type", param=name) from None

    def _take(self, name: str, decode: Callable[[msgspec.Raw], _T], expected: str) -> _T | None:
        raw = self._given.get(name)
        return None if raw is None else _read(raw, decode, name, expected)

    def _required(self, name: str, decode: Callable[[msgspec.Raw], _T], expected: str) -> _T:
        if name not in self._given:
            raise _missing(name)
        return _read(self._given[name], decode, name, expected)


def _tool(tool: schema.Tool) -> form.Tool:
    spec = form.FunctionSpec(
        name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict
    )
    return form.Tool(function=spec, cache_control=tool.cache_control)


def _choice(choice: schema.Choice) -> form.ToolChoice:
    if isinstance(choice, schema.ToolChoice):
        return form.NamedChoice(function=form.Named(name=choice.name))
    if isinstance(choice, schema.AnyChoice):
        return "required"
    return "none" if isinstance(choice, schema.NoChoice) else "auto"


def _read(raw: msgspec.Raw, decode: Callable[[msgspec.Raw], _T], name: str, expected: str) -> _T:
    try:
        return decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{name}` must be {expected}.", code="invalid_type", param=name) from None


def _check_size(name: str, raw: msgspec.Raw) -> None:
    """Raises InvalidRequest for more objects than may be made; what is in a text is none."""
    text = bytes(raw)
    if text.count(b"{") > OBJECTS_MAX and _outside_strings(b"", text).count(b"{") > OBJECTS_MAX:
        raise InvalidRequest(f"`{name}` holds more than {OBJECTS_MAX} objects.", param=name)


def _missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"`{name}` is required.", code="missing_field", param=name)
