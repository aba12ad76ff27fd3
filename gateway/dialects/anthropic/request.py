"""A chat request as one of Messages; pure.

Fields are written in groups (``Group``), so that a request that passes through can have one of them exchanged.

Sources: https://platform.claude.com/docs/en/api/messages, .../docs/en/build-with-claude/effort (``output_config``),
.../build-with-claude/adaptive-thinking, .../build-with-claude/structured-outputs, .../agents-and-tools/tool-use
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.to_messages import Conversation, conversation_of
from gateway.dialects.ask import Ask
from gateway.errors import InvalidRequest
from gateway.model import AnthropicOptions

DEFAULTS: Final = AnthropicOptions()

Native = dict[str, Any]
"""Members of a Messages request: structs, raw JSON, or plain values."""

_NO_PARAMETERS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_ANYTHING: Final = msgspec.Raw(b"{}")
_ANY_INPUT: Final = msgspec.Raw(b'{"type":"object"}')

_EFFORTS: Final[Mapping[str, schema.Effort]] = MappingProxyType(
    {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
)
_BUDGETS: Final = MappingProxyType(
    {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 65_536}
)
_BUDGET_MIN: Final = 1_024  # tokens; the API takes no less
_BUDGET_SHARE_MAX: Final = 0.8  # of the output limit, which has to hold the answer, too

_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_thinking = msgspec.json.Decoder(schema.ThinkingConfig).decode


def body_of(ask: Ask) -> bytes:
    """The body to send. Raises InvalidRequest for what Messages cannot say."""
    conversation = conversation_of(ask.messages(), ask)
    native: Native = {"model": ask.model, "max_tokens": max_tokens_of(ask)}
    native |= said(conversation)
    native |= sampling(ask)
    native |= tools(ask, conversation)
    native |= output(ask, native, conversation)
    if ask.request.stream:
        native["stream"] = True
    return _encode(native)


def max_tokens_of(ask: Ask) -> int:
    """The output limit, which every request has to have."""
    limit = ask.max_tokens
    return ask.backend.max_output_tokens if limit is None else limit


def said(conversation: Conversation) -> Native:
    """``system`` and ``messages``. Raises InvalidRequest where nothing is asked."""
    if not conversation.turns:
        raise InvalidRequest("`messages` must hold a message of the user with this model.", param="messages")
    native: Native = {"system": conversation.system} if conversation.system else {}
    return native | {"messages": conversation.turns}


def sampling(ask: Ask) -> Native:
    """How to sample, where to stop, and for whom."""
    native: Native = {}
    for name in ("temperature", "top_p"):
        value = ask.number(name)
        if value is None:
            continue
        if 0 <= value <= 1:
            native[name] = value
        else:
            ask.cannot(name, "it takes 0 to 1")
    top_k = ask.integer("top_k")
    if top_k is not None and top_k > 0:  # -1 and 0 are how servers of the chat dialect say all
        native["top_k"] = top_k
    stop = ask.stop()
    if stop:
        native["stop_sequences"] = stop
    user = ask.text("user") or ask.text("safety_identifier")
    if user:
        native["metadata"] = schema.RequestMetadata(user_id=user)
    marker = ask.take("cache_control", _decode_raw, "an object")
    if marker is not None:
        native["cache_control"] = marker
    return native


def tools(ask: Ask, conversation: Conversation) -> Native:
    """The tools and which of them to use."""
    given, choice, parallel = ask.tools(), ask.tool_choice(), ask.boolean("parallel_tool_calls")
    if not given:
        if isinstance(choice, form.NamedChoice) or choice == "required":
            ask.cannot("tool_choice", "no tools are given")
        return _tools_of_the_past(conversation)
    native: Native = {"tools": [_tool(tool) for tool in given]}
    if choice is not None or parallel is False:
        native["tool_choice"] = _choice(choice, is_alone=parallel is False)
    return native


def _tools_of_the_past(conversation: Conversation) -> Native:
    """Calls that were made have to be of known tools, also where none is to be called any more."""
    if not conversation.tools:
        return {}
    known = [schema.Tool(name=name, input_schema=_ANY_INPUT) for name in conversation.tools]
    return {"tools": known, "tool_choice": schema.NoChoice()}


def _tool(tool: form.Tool) -> schema.Tool:
    parameters = form.given(tool.function.parameters)
    return schema.Tool(
        name=tool.function.name,
        description=tool.function.description or None,
        input_schema=_NO_PARAMETERS if parameters is UNSET or parameters == _ANYTHING else parameters,
        strict=tool.function.strict or None,
        cache_control=form.given(tool.cache_control),
    )


def _choice(choice: form.ToolChoice | None, *, is_alone: bool) -> schema.Choice:
    if isinstance(choice, form.NamedChoice):
        return schema.ToolChoice(name=choice.function.name, disable_parallel_tool_use=is_alone)
    if choice == "required":
        return schema.AnyChoice(disable_parallel_tool_use=is_alone)
    if choice == "none":
        return schema.NoChoice()
    return schema.AutoChoice(disable_parallel_tool_use=is_alone)


def output(ask: Ask, native: Native, conversation: Conversation) -> Native:
    """Reasoning, and the form of the answer. ``native`` has the output limit and the choice of tools."""
    told: Native = {}
    effort: schema.Effort | None = None
    thinking = ask.take("thinking", _decode_thinking, "a configuration of thinking, as of Anthropic's API")
    wanted = _effort(ask)
    if wanted is not None:
        how = (ask.backend.anthropic or DEFAULTS).thinking
        if how == "budget":
            thinking = thinking or _budget(wanted, ask, native, conversation)
        elif wanted == "none":
            thinking = thinking or schema.DisabledThinking()
        else:
            effort = _EFFORTS[wanted]
            if thinking is None and not _is_forced(native):  # no model thinks that must use a tool
                thinking = schema.AdaptiveThinking()
    if isinstance(thinking, schema.EnabledThinking):
        budget = fitting(thinking.budget_tokens, native["max_tokens"])
        thinking = None if budget is None else replace(thinking, budget_tokens=budget)
    if thinking is not None:
        told["thinking"] = thinking
    answer = _format(ask)
    if effort is not None or answer is not None:
        told["output_config"] = schema.OutputConfig(effort=effort, format=answer)
    return told


def _effort(ask: Ask) -> str | None:
    if (ask.backend.anthropic or DEFAULTS).thinking == "none":
        return None  # what is asked for is left, and refused
    wanted = ask.text("reasoning_effort")
    if wanted is not None and wanted != "none" and wanted not in _EFFORTS:
        raise InvalidRequest(f"`reasoning_effort` must be none, {', '.join(_EFFORTS)}.", param="reasoning_effort")
    return wanted


def _budget(wanted: str, ask: Ask, native: Native, conversation: Conversation) -> schema.ThinkingConfig | None:
    """Tokens to think, of models that do not adapt; None where none are to be thought or could be."""
    if wanted == "none" or not conversation.is_thought_through:  # calls without their reasoning cannot be gone on from
        return None
    budget = min(_BUDGETS[wanted], int(native["max_tokens"] * _BUDGET_SHARE_MAX))
    if _is_forced(native):
        ask.cannot("reasoning_effort", "it does not think where it must use a tool")
    elif budget < _BUDGET_MIN:
        ask.cannot("reasoning_effort", "its output limit leaves no room to think")
    else:
        return schema.EnabledThinking(budget_tokens=budget)
    return None


def fitting(budget: int, limit: int) -> int | None:
    """A budget of tokens to think that leaves room for an answer below the output limit; None where there is none.

    The limit may be lower than the one that the budget was made for: the API takes no budget that is not below it.
    """
    if budget < limit:
        return budget
    lowered = int(limit * _BUDGET_SHARE_MAX)
    return lowered if lowered >= _BUDGET_MIN else None


def _is_forced(native: Native) -> bool:
    return isinstance(native.get("tool_choice"), schema.AnyChoice | schema.ToolChoice)


def _format(ask: Ask) -> schema.JsonFormat | None:
    wanted = ask.answer_format()
    if wanted is None or wanted.type == "text":
        return None
    given = UNSET if wanted.json_schema is None else form.given(wanted.json_schema.schema)
    if given is UNSET:
        ask.cannot("response_format", "it needs a JSON Schema for an answer in JSON")
        return None
    return schema.JsonFormat(schema=given)
