"""Rendering: pure. A scenario's prompt and parameters applied to the fields of a request.

A scenario that sets nothing returns the request it was given. What the caller sent is checked first, by the scenario's
rules of fields. Precedence: overrides, then the request, then defaults; the cap is applied last and only ever lowers.
"""

from __future__ import annotations

import msgspec

from gateway.dialects.openai.operations import SHAPES, UPLOADED, request_of
from gateway.errors import InvalidRequest
from gateway.model import NO_PARAMETERS, OUTPUT_LIMITS, AnswerRule, ChatRequest, Parameters, Scenario
from gateway.scenarios.fields import check_fields, check_native
from gateway.scenarios.prompting import with_prompt
from gateway.scenarios.variables import METADATA_FIELD, Fields, is_null, take_variables

_FORMAT_FIELD = "response_format"
_decode_int = msgspec.json.Decoder(int).decode


def render(scenario: Scenario, request: ChatRequest) -> ChatRequest:
    """The request as the scenario wants it sent.

    Raises InvalidRequest: a prompt variable that is missing, unknown or given twice, a field that is not taken or holds
    what it must not, no message at all; RequestTooLarge.
    """
    given = request.fields
    if request.operation != "chat":
        return _adjusted(scenario, request)
    if (
        scenario.prompt is None
        and scenario.parameters is NO_PARAMETERS
        and scenario.answer is None
        and request.variables_field not in given
        and METADATA_FIELD not in given
    ):
        return request
    parameters, prompt = scenario.parameters, scenario.prompt
    fields: Fields = dict(given)
    values = take_variables(fields, request.variables_field, prompt)
    if parameters.allow is not None or parameters.deny or parameters.check_sampling:
        check_fields(parameters, fields)
        if request.native is not None:
            check_native(parameters, request.native)
    _set(fields, parameters)
    messages = fields.get("messages")
    if prompt is not None:
        fields["messages"] = with_prompt(prompt, scenario.prompt_placement, messages, values, request.variables_field)
    elif messages is None:
        raise InvalidRequest("`input` is required: the scenario has no prompt.", code="missing_field", param="input")
    if scenario.answer is not None:
        _ask_for(fields, scenario.answer)
    cap = _apply_cap(fields, parameters.max_output_tokens)
    return msgspec.structs.replace(
        request,
        fields=fields,
        max_output_tokens=cap,
        choices=request.choices if fields.get("n") == given.get("n") else _choices(fields, request.choices),
        answers=2 if scenario.answer is not None and scenario.answer.retry and not request.stream else 1,
    )


def _adjusted(scenario: Scenario, request: ChatRequest) -> ChatRequest:
    """The request of anything but a chat: the rules of fields, the defaults and the overrides hold for it too."""
    if scenario.prompt is not None or scenario.answer is not None:
        raise InvalidRequest(
            f"The model `{request.model[:128]}` answers chats only.", code="unsupported_operation", param="model"
        )
    parameters = scenario.parameters
    if parameters is NO_PARAMETERS:
        return request
    fields: Fields = dict(request.fields)
    needed = SHAPES[request.operation].needs
    if request.operation in UPLOADED:  # the values of a form are texts, whatever they say
        parameters = msgspec.structs.replace(parameters, check_sampling=False)
    check_fields(parameters, {name: raw for name, raw in fields.items() if name != needed})
    _set(fields, parameters)
    return request_of(request.operation, request.model, fields, request.body_bytes)


def _ask_for(fields: Fields, rule: AnswerRule) -> None:
    """Ask for an answer of the scenario's schema, unless the request asks for some form itself."""
    if not _is_given(fields, _FORMAT_FIELD):
        for name in [name for name in fields if name.casefold() == _FORMAT_FIELD]:
            del fields[name]
        fields[_FORMAT_FIELD] = rule.response_format


def _set(fields: Fields, parameters: Parameters) -> None:
    """Apply defaults and overrides."""
    is_limited = any(_is_given(fields, name) for name in OUTPUT_LIMITS)
    _drop_other_spellings(fields, parameters)
    for name, value in parameters.defaults.items():
        # The two names of the output limit say the same: a default must not add one to the caller's other.
        if not (is_limited if name in OUTPUT_LIMITS else _is_given(fields, name)):
            fields[name] = value
    fields.update(parameters.overrides)


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
        return asked if is_null(raw) else max(_decode_int(raw), 1)
    except msgspec.DecodeError:
        return asked


def _apply_cap(fields: Fields, cap: int | None) -> int | None:
    """Lower the output limits to ``cap``; returns the looser one after it, since the backend may go by either."""
    limits = []
    for name in OUTPUT_LIMITS:
        raw = fields.get(name)
        if raw is None or is_null(raw):
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
    return name in fields and not is_null(fields[name])
