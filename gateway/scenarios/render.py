"""Rendering: pure. A scenario's prompt, defaults, overrides and output cap applied to the fields of a request.

A scenario that sets nothing returns the request it was given. Precedence: overrides, then the request, then defaults;
the cap is applied last and only ever lowers.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.errors import InvalidRequest
from gateway.model import OUTPUT_LIMITS, ChatRequest, Parameters, Prompt, Scenario

VARIABLES_FIELD = "prompt_variables"
"""The request field that carries a prompt's variables; it is the gateway's own and never goes upstream."""

_SMALL_BYTES = 65_536  # up to this size variables are decoded first and compared with the prompt's then
_encode = msgspec.json.Encoder().encode
_decode_variables = msgspec.json.Decoder(dict[str, str]).decode
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
    is_limited = any(_is_given(fields, name) for name in OUTPUT_LIMITS)
    _drop_other_spellings(fields, parameters)
    for name, value in parameters.defaults.items():
        # The two names of the output limit say the same: a default must not add one to the caller's other.
        if not (is_limited if name in OUTPUT_LIMITS else _is_given(fields, name)):
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


def _drop_other_spellings(fields: Fields, parameters: Parameters) -> None:
    """Leave out what a backend that does not tell capitals apart would take for a field that the scenario sets."""
    if not parameters.defaults and not parameters.overrides:
        return
    own = {*parameters.defaults, *parameters.overrides}
    folded = {name.casefold() for name in own}
    for name in [name for name in fields if name not in own and name.casefold() in folded]:
        del fields[name]


def _choices(fields: Fields, asked: int) -> int:
    """How many answers are asked for after defaults and overrides; as before where they make no sense of it."""
    raw = fields.get("n", b"null")
    try:
        return asked if _is_null(raw) else max(_decode_int(raw), 1)
    except msgspec.DecodeError:
        return asked


def _apply_cap(fields: Fields, cap: int | None) -> int | None:
    """Lower the output limits to ``cap``; returns the looser one after it, since the backend may go by either."""
    limits = []
    for name in OUTPUT_LIMITS:
        raw = fields.get(name)
        if raw is None or _is_null(raw):
            continue
        limit = _decode_int(raw)
        if cap is not None and limit > cap:
            limit = cap
            fields[name] = str(cap).encode()
        limits.append(limit)
    if limits:
        return max(limits)
    if cap is not None:
        fields["max_tokens"] = str(cap).encode()
    return cap


def _is_given(fields: Fields, name: str) -> bool:
    return name in fields and not _is_null(fields[name])


def _is_null(raw: msgspec.Raw | bytes) -> bool:
    return len(raw) == 4 and bytes(raw) == b"null"


def _render_prompt(prompt: Prompt, raw: msgspec.Raw | bytes | None) -> str:
    values = _variables(prompt, raw)
    for name in values:
        if name not in prompt.input_vars:
            raise _unknown(name)
    for name in prompt.input_vars:
        if name not in values:
            raise InvalidRequest(
                f"The prompt needs the variable `{name}`.", code="missing_field", param=f"{VARIABLES_FIELD}.{name}"
            )
    return "".join(part if position % 2 == 0 else values[part] for position, part in enumerate(prompt.parts))


def _unknown(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"The prompt has no variable `{name[:64]}`.", code="unsupported_field", param=f"{VARIABLES_FIELD}.{name[:64]}"
    )


def _variables(prompt: Prompt, raw: msgspec.Raw | bytes | None) -> Mapping[str, str]:
    if raw is None:
        return {}
    try:
        return _decode_variables(raw) if len(raw) <= _SMALL_BYTES else _decode_bounded(prompt, raw)
    except msgspec.DecodeError:
        raise InvalidRequest(
            f"`{VARIABLES_FIELD}` must be an object whose values are strings.",
            code="invalid_type",
            param=VARIABLES_FIELD,
        ) from None


class _Name:
    """A variable's name as it was found."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _decode_bounded(prompt: Prompt, raw: msgspec.Raw | bytes) -> dict[str, str]:
    """Large variables, read only as far as they are the prompt's, each once. Raises InvalidRequest, DecodeError."""
    seen: set[str] = set()

    def to_name(_: type, found: object) -> _Name:
        name = str(found)
        if name not in prompt.input_vars:
            raise _unknown(name)
        if name in seen:
            param = f"{VARIABLES_FIELD}.{name}"
            raise InvalidRequest(f"The field `{param}` appears more than once.", code="repeated_field", param=param)
        seen.add(name)
        return _Name(name)

    values = msgspec.json.Decoder(dict[_Name, str], dec_hook=to_name).decode(raw)
    return {name.text: value for name, value in values.items()}


def _with_system_message(messages: msgspec.Raw | bytes, text: str) -> bytes:
    """The messages with the prompt as the first system message; the caller's own, at least one, follow untouched."""
    system = _encode({"role": "system", "content": text})
    return b"".join((b"[", system, b",", memoryview(messages)[1:]))
