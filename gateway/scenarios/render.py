"""Rendering: pure. A scenario's prompt, defaults, overrides and output cap applied to the fields of a request.

A scenario that sets nothing returns the request it was given. Precedence: overrides, then the request, then defaults;
the cap is applied last and only ever lowers.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.errors import InvalidRequest
from gateway.model import ChatRequest, Prompt, Scenario

VARIABLES_FIELD = "prompt_variables"
"""The request field that carries a prompt's variables; it is the gateway's own and never goes upstream."""

_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")
_encode = msgspec.json.Encoder().encode
_decode_variables = msgspec.json.Decoder(dict[str, str]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_int = msgspec.json.Decoder(int).decode

Fields = dict[str, msgspec.Raw | bytes]


def render(scenario: Scenario, request: ChatRequest) -> ChatRequest:
    """The request as the scenario wants it sent. Raises InvalidRequest for a prompt variable missing or unknown."""
    parameters = scenario.parameters
    if (
        scenario.prompt is None
        and not parameters.defaults
        and not parameters.overrides
        and parameters.max_output_tokens is None
        and VARIABLES_FIELD not in request.fields
    ):
        return request
    fields: Fields = dict(request.fields)
    variables = fields.pop(VARIABLES_FIELD, None)
    if variables is not None and _is_null(variables):
        variables = None
    is_limited = any(_is_given(fields, name) for name in _OUTPUT_LIMITS)
    for name, value in parameters.defaults.items():
        # The two names of the output limit say the same: a default must not add one to the caller's other.
        if not (is_limited if name in _OUTPUT_LIMITS else _is_given(fields, name)):
            fields[name] = value
    fields.update(parameters.overrides)
    if scenario.prompt is not None:
        fields["messages"] = _with_system_message(fields["messages"], _render_prompt(scenario.prompt, variables))
    elif variables is not None:
        raise InvalidRequest(
            f"`{VARIABLES_FIELD}` was given but the scenario has no prompt.",
            code="unsupported_field",
            param=VARIABLES_FIELD,
        )
    cap = _apply_cap(fields, parameters.max_output_tokens)
    choices = _choices(fields, request.choices)
    return msgspec.structs.replace(request, fields=fields, max_output_tokens=cap, choices=choices)


def _choices(fields: Fields, asked: int) -> int:
    """How many answers are asked for after defaults and overrides; as before where they make no sense of it."""
    raw = fields.get("n", b"null")
    try:
        return asked if _is_null(raw) else max(_decode_int(raw), 1)
    except msgspec.DecodeError:
        return asked


def _apply_cap(fields: Fields, cap: int | None) -> int | None:
    """Lower the request's output limits to ``cap``; returns the limit that is in force after it."""
    limits = []
    for name in _OUTPUT_LIMITS:
        raw = fields.get(name)
        if raw is None or _is_null(raw):
            continue
        limit = _decode_int(raw)
        if cap is not None and limit > cap:
            limit = cap
            fields[name] = str(cap).encode()
        limits.append(limit)
    if limits:
        return min(limits)
    if cap is not None:
        fields["max_tokens"] = str(cap).encode()
    return cap


def _is_given(fields: Fields, name: str) -> bool:
    return name in fields and not _is_null(fields[name])


def _is_null(raw: msgspec.Raw | bytes) -> bool:
    return len(raw) == 4 and bytes(raw) == b"null"


def _render_prompt(prompt: Prompt, raw: msgspec.Raw | bytes | None) -> str:
    values = _variables(raw)
    for name in values:
        if name not in prompt.input_vars:
            raise InvalidRequest(
                f"The prompt has no variable `{name[:64]}`.",
                code="unsupported_field",
                param=f"{VARIABLES_FIELD}.{name[:64]}",
            )
    for name in prompt.input_vars:
        if name not in values:
            raise InvalidRequest(
                f"The prompt needs the variable `{name}`.", code="missing_field", param=f"{VARIABLES_FIELD}.{name}"
            )
    return "".join(part if position % 2 == 0 else values[part] for position, part in enumerate(prompt.parts))


def _variables(raw: msgspec.Raw | bytes | None) -> Mapping[str, str]:
    if raw is None:
        return {}
    try:
        return _decode_variables(raw)
    except msgspec.DecodeError:
        raise InvalidRequest(
            f"`{VARIABLES_FIELD}` must be an object whose values are strings.",
            code="invalid_type",
            param=VARIABLES_FIELD,
        ) from None


def _with_system_message(messages: msgspec.Raw | bytes, text: str) -> bytes:
    """The messages with the prompt as the first system message; the caller's own follow untouched."""
    items = [bytes(item) for item in _decode_items(messages)]
    system = _encode({"role": "system", "content": text})
    return b"[" + b",".join([system, *items]) + b"]"
