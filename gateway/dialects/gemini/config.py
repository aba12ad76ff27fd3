"""How an answer is to be made: ``generationConfig`` from the sampling, format and reasoning fields of a chat request.

Sources: https://ai.google.dev/api/generate-content#generationconfig, https://ai.google.dev/gemini-api/docs/thinking,
https://ai.google.dev/gemini-api/docs/openai#thinking (what efforts mean).
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from gateway.dialects import form
from gateway.dialects.ask import Ask
from gateway.dialects.gemini.schema import GenerationConfig, ThinkingConfig
from gateway.errors import InvalidRequest

_BUDGETS: Final = MappingProxyType({"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576})
_LEVELS: Final = MappingProxyType(
    {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
)
_BUDGET_MAX = 1_000_000
_OF_BUDGETS = re.compile(r"(?:.*/)?gemini-[12](?!\d)")


def thinks_in_budgets(model: str) -> bool:
    """Whether it is of a generation before Gemini 3, which took numbers of tokens for levels and no signatures."""
    return _OF_BUDGETS.match(model) is not None


class _Thinking(msgspec.Struct):
    """``thinking`` as callers of Anthropic's dialect say it."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class _ThinkingConfig(msgspec.Struct, forbid_unknown_fields=True):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class _Google(msgspec.Struct, forbid_unknown_fields=True):
    thinking_config: _ThinkingConfig | None = None


class _ExtraBody(msgspec.Struct, forbid_unknown_fields=True):
    """``extra_body`` as Google's own endpoint of the chat dialect knows it; what is not here is refused."""

    google: _Google | None = None


_decode_thinking = msgspec.json.Decoder(_Thinking).decode
_decode_extra_body = msgspec.json.Decoder(_ExtraBody).decode
_decode_modalities = msgspec.json.Decoder(list[Literal["text"]]).decode


def config_of(ask: Ask) -> GenerationConfig | None:
    """All of it; None where nothing is asked for. Raises InvalidRequest."""
    ask.take("modalities", _decode_modalities, 'an array with "text" alone')
    mime_type, schema = _format(ask)
    response_logprobs, logprobs = _logprobs(ask)
    config = GenerationConfig(
        candidate_count=ask.request.choices if ask.request.choices > 1 else None,
        max_output_tokens=ask.max_tokens,
        temperature=ask.number("temperature"),
        top_p=ask.number("top_p"),
        top_k=ask.integer("top_k"),
        seed=ask.integer("seed"),
        presence_penalty=ask.number("presence_penalty"),
        frequency_penalty=ask.number("frequency_penalty"),
        stop_sequences=ask.stop() or None,
        response_logprobs=response_logprobs,
        logprobs=logprobs,
        response_mime_type=mime_type,
        response_json_schema=schema,
        thinking_config=_thinking(ask),
    )
    return None if config == GenerationConfig() else config


def _format(ask: Ask) -> tuple[str | None, msgspec.Raw | msgspec.UnsetType]:
    """Media type and schema of the answer."""
    wanted = ask.answer_format()
    if wanted is None or wanted.type == "text":
        return None, msgspec.UNSET
    return "application/json", msgspec.UNSET if wanted.json_schema is None else form.given(wanted.json_schema.schema)


def _logprobs(ask: Ask) -> tuple[bool | None, int | None]:
    """Whether they are told, and of how many tokens at each place besides the chosen one."""
    told = ask.boolean("logprobs")
    several = ask.integer("top_logprobs")
    if not told:
        if several:
            raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        return None, None
    return True, several or None


def _thinking(ask: Ask) -> ThinkingConfig | None:
    """How much is thought; the most exact of the fields that say so counts."""
    effort = ask.text("reasoning_effort")
    thinking = ask.take("thinking", _decode_thinking, "an object with the type enabled, disabled or adaptive")
    extra = ask.take("extra_body", _decode_extra_body, "an object with google.thinking_config alone")
    in_budgets = thinks_in_budgets(ask.model)
    if extra is not None and extra.google is not None and extra.google.thinking_config is not None:
        asked = extra.google.thinking_config
        level = None if asked.thinking_level is None else asked.thinking_level.upper()
        return ThinkingConfig(
            include_thoughts=asked.include_thoughts, thinking_budget=asked.thinking_budget, thinking_level=level
        )
    if thinking is not None and thinking.budget_tokens is not None and thinking.type == "enabled":
        if not 1 <= thinking.budget_tokens <= _BUDGET_MAX:
            raise InvalidRequest(
                f"`thinking.budget_tokens` must be between 1 and {_BUDGET_MAX}.", param="thinking.budget_tokens"
            )
        if in_budgets or effort is None:
            return ThinkingConfig(include_thoughts=True, thinking_budget=thinking.budget_tokens)
    if thinking is not None and thinking.type == "disabled":
        effort = "none"
    if effort is None:
        return None if thinking is None else ThinkingConfig(include_thoughts=True)
    return _of_effort(effort, in_budgets=in_budgets)


def _of_effort(effort: str, *, in_budgets: bool) -> ThinkingConfig:
    known = _BUDGETS if in_budgets else _LEVELS
    if effort not in known:
        raise InvalidRequest(f"`reasoning_effort` must be one of {', '.join(known)}.", param="reasoning_effort")
    told = None if effort == "none" else True
    if in_budgets:
        return ThinkingConfig(include_thoughts=told, thinking_budget=_BUDGETS[effort])
    return ThinkingConfig(include_thoughts=told, thinking_level=_LEVELS[effort])
