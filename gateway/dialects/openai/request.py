"""Chat requests: read from a caller, written to a backend.

Invariants:
- What is authorised is what is sent: the body that leaves is put together from the very fields that were read, each
  once. A top-level key that appears twice, in whatever spelling, is refused, and so is one that a backend might take
  for another because they differ in case alone.
- The number of objects made of a body is bounded whatever its size.
- Values the gateway has no business with are never decoded: they leave as the bytes they came as.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from gateway.dialects.openai.members import read_members, repeated
from gateway.dialects.openai.plain import plain
from gateway.dialects.openai.usage import ABSENT
from gateway.errors import InvalidRequest
from gateway.model import OUTPUT_LIMITS, Backend, ChatRequest, Origin

_T = TypeVar("_T")

_MAX_CHOICES = 128
_MAX_STREAM_OPTIONS_BYTES = 4096


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_decode_str: Callable[[msgspec.Raw | bytes], str | None] = msgspec.json.Decoder(str | None).decode
_decode_bool: Callable[[msgspec.Raw | bytes], bool | None] = msgspec.json.Decoder(bool | None).decode
_decode_int: Callable[[msgspec.Raw | bytes], int | None] = msgspec.json.Decoder(int | None).decode
_decode_options = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_stream_options = msgspec.json.Decoder(_StreamOptions | None).decode
_encode = msgspec.json.Encoder().encode

_KEYS: dict[str, bytes] = {
    name: b"," + _encode(name) + b":"
    for name in (
        "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens",
        "n", "stop", "seed", "tools", "tool_choice", "response_format", "user", "metadata", "logprobs", "top_logprobs",
        "presence_penalty", "frequency_penalty", "parallel_tool_calls", "logit_bias", "reasoning_effort", "store",
        "service_tier", "prompt_variables", "top_k", "min_p", "repetition_penalty", "chat_template_kwargs",
    )
}  # fmt: skip
"""Names that are met often, as they are written; all in small letters."""

_KNOWN = frozenset(_KEYS)
_GOVERNED = frozenset(
    {"model", "messages", "stream", "stream_options", "n", "prompt_variables", "metadata", *OUTPUT_LIMITS}
)
"""Names that something is decided by: no other spelling of them is let through."""

VARIABLES_FIELD = "variables"
INPUT_FIELD = "input"
_GOVERNED_OF_SCENARIOS = _GOVERNED | {VARIABLES_FIELD, INPUT_FIELD}
_NOT_OF_SCENARIOS = frozenset({"model", "messages", "prompt_variables"})
_SHOWN_CHARS_MAX = 256
_OUTPUT_LIMITS = frozenset(OUTPUT_LIMITS)

# An array that holds something; what it holds is not read.
_has_item = re.compile(rb"\[[ \t\n\r]*[^] \t\n\r]").match
_ACCEPTED = {"bedrock": b"*/*"}  # whose streams are of a type of their own
_USAGE_ASKED = b',"stream_options":{"include_usage":true}'


def refuse_other_spellings(fields: Mapping[str, msgspec.Raw], governed: frozenset[str] = _GOVERNED) -> None:
    """Raises InvalidRequest for a name that another one, or one that decides anything, equals but for its case.

    Go's ``encoding/json``, for one, matches names so (https://pkg.go.dev/encoding/json#Unmarshal): its last one wins.
    """
    seen: set[str] = set()
    for name in fields:
        folded = name.casefold()
        if folded in governed and folded != name:
            raise InvalidRequest(
                f"The field `{name}` is not known: its name is `{folded}`.", code="unsupported_field", param=name
            )
        if folded in seen:
            raise repeated(name)
        seen.add(folded)


def read_chat_request(body: bytes, max_members: int, default_model: str | None = None) -> ChatRequest:
    """Read the body of ``POST /v1/chat/completions``. Raises InvalidRequest; ``param`` names the field.

    ``default_model`` serves the endpoints that may leave the model out; None makes it required.
    """
    fields = read_members(body, max_members)
    if not _KNOWN.issuperset(fields):
        refuse_other_spellings(fields)
    model = field_of(fields, "model", _decode_str, "a string")
    if model is None:
        if default_model is None:
            raise missing("model")
        model = default_model
    if not model:
        raise InvalidRequest("`model` must not be empty.", param="model")
    messages = fields.get("messages")
    if messages is None:
        raise missing("messages")
    if _has_item(messages) is None:
        raise _no_messages(messages)
    return _request(model, fields, len(body))


def read_scenario_request(body: bytes, max_members: int, name: str) -> ChatRequest:
    """Read the body of ``POST /v1/scenarios/{name}``: fields of a chat request, but ``variables`` and ``input``.

    ``input`` is what the user says; without it the request has no messages. Raises InvalidRequest.
    """
    fields: dict[str, msgspec.Raw] = {}
    for field, raw in read_members(body, max_members).items():
        if field.casefold() in _NOT_OF_SCENARIOS:
            raise InvalidRequest(
                f"`{field}` is decided by the scenario.", code="unsupported_field", param=field[:_SHOWN_CHARS_MAX]
            )
        fields[field] = raw
    refuse_other_spellings(fields, _GOVERNED_OF_SCENARIOS)
    spoken = fields.pop(INPUT_FIELD, ABSENT)
    if spoken != ABSENT:
        if not field_of({INPUT_FIELD: spoken}, INPUT_FIELD, _decode_str, "a string"):
            raise InvalidRequest(f"`{INPUT_FIELD}` must not be empty.", param=INPUT_FIELD)
        fields["messages"] = msgspec.Raw(b'[{"role":"user","content":%b}]' % bytes(spoken))
    else:
        fields.setdefault(VARIABLES_FIELD, msgspec.Raw(b"{}"))
    return _request(name, fields, len(body), VARIABLES_FIELD)


def _request(
    model: str, fields: Mapping[str, msgspec.Raw], body_bytes: int, variables_field: str = "prompt_variables"
) -> ChatRequest:
    """The request of these fields, those decoded that route, limit or bill."""
    stream = "stream" in fields and bool(field_of(fields, "stream", _decode_bool, "a boolean"))
    return ChatRequest(
        model=model,
        fields=fields,
        stream=stream,
        include_usage="stream_options" in fields and asks_for_usage(fields, stream=stream),
        max_output_tokens=(
            _output_limit(fields) if "max_tokens" in fields or "max_completion_tokens" in fields else None
        ),
        choices=_choices(fields) if "n" in fields else 1,
        body_bytes=body_bytes,
        variables_field=variables_field,
    )


def missing(name: str) -> InvalidRequest:
    """The refusal of a request without a field that it needs."""
    return InvalidRequest(f"`{name}` is required.", code="missing_field", param=name)


def field_of(
    fields: Mapping[str, msgspec.Raw | bytes],
    name: str,
    decode: Callable[[msgspec.Raw | bytes], _T | None],
    expected: str,
) -> _T | None:
    """The decoded value of a field, None where it is absent or null. Raises InvalidRequest."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except msgspec.DecodeError:
        raise InvalidRequest(f"`{name}` must be {expected}.", code="invalid_type", param=name) from None


def _no_messages(raw: msgspec.Raw) -> InvalidRequest:
    if bytes(memoryview(raw)[:1]) != b"[":
        return InvalidRequest("`messages` must be an array.", code="invalid_type", param="messages")
    return InvalidRequest("`messages` must not be empty.", param="messages")


def _output_limit(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """The looser of the two limits; None where the request sets none.

    Which of the names wins is the backend's to choose, and what is reserved must bind it.
    """
    loosest: int | None = None
    for name in OUTPUT_LIMITS:
        if name in fields:
            limit = field_of(fields, name, _decode_int, "an integer")
            if limit is None:
                continue
            if limit < 1:
                raise InvalidRequest(f"`{name}` must be at least 1.", param=name)
            if loosest is None or limit > loosest:
                loosest = limit
    return loosest


def _choices(fields: Mapping[str, msgspec.Raw]) -> int:
    choices = field_of(fields, "n", _decode_int, "an integer")
    if choices is None:
        return 1
    if not 1 <= choices <= _MAX_CHOICES:
        raise InvalidRequest(f"`n` must be between 1 and {_MAX_CHOICES}.", param="n")
    return choices


def asks_for_usage(fields: Mapping[str, msgspec.Raw], *, stream: bool) -> bool:
    """Whether ``stream_options`` ask for usage. Raises InvalidRequest."""
    options = field_of(fields, "stream_options", _decode_stream_options, "an object")
    if options is None:
        return False
    if not stream:
        raise InvalidRequest("`stream_options` is only allowed where `stream` is true.", param="stream_options")
    if len(fields["stream_options"]) > _MAX_STREAM_OPTIONS_BYTES:
        raise InvalidRequest(
            f"`stream_options` must not be longer than {_MAX_STREAM_OPTIONS_BYTES} bytes.", param="stream_options"
        )
    return bool(options.include_usage)


def encode_chat_request(request: ChatRequest, backend: Backend) -> bytes:
    """The body to send to ``backend``: its model's name, usage asked for on streams, all that it takes as it came."""
    native = request.native
    fields = request.fields if native is None else plain(request.fields, native.chat, backend)
    if backend.unsupported_fields:
        fields = _taken(fields, backend.unsupported_fields)
    stream = request.stream
    parts: list[bytes | msgspec.Raw] = [b'{"model":', _encode(backend.model or request.model)]
    if request.output_limit is not None:
        limit = min(request.output_limit, backend.max_output_tokens)
        if _OUTPUT_LIMITS.isdisjoint(fields):
            name = "max_completion_tokens" if "max_tokens" in backend.unsupported_fields else "max_tokens"
            parts.append(f',"{name}":{limit}'.encode())
        else:
            fields = _limited(fields, limit)
    for name, raw in fields.items():
        if name != "model" and not (stream and name == "stream_options"):
            parts += (_KEYS.get(name) or b"," + _encode(name) + b":", raw)
    if stream:
        parts.append(_stream_options(fields.get("stream_options")))
    parts.append(b"}")
    return b"".join(parts)


def _taken(fields: Mapping[str, msgspec.Raw | bytes], unsupported: frozenset[str]) -> Mapping[str, msgspec.Raw | bytes]:
    """What the backend takes. An output limit is never left out: where it does not take the one name, by the other."""
    newer, older = OUTPUT_LIMITS
    taken = {name: raw for name, raw in fields.items() if name.casefold() not in unsupported}
    if older in fields and older in unsupported:
        taken.setdefault(newer, fields[older])
    return taken


def _limited(fields: Mapping[str, msgspec.Raw | bytes], limit: int) -> Mapping[str, msgspec.Raw | bytes]:
    """The fields with an output limit of at most ``limit``, under the name that the request has for it."""
    lowered = dict(fields)
    is_limited = False
    for name in OUTPUT_LIMITS:
        asked = _decode_int(msgspec.Raw(fields[name])) if name in fields else None
        if asked is not None:
            is_limited = True
            if asked > limit:
                lowered[name] = b"%d" % limit
    if not is_limited:
        lowered[next(name for name in OUTPUT_LIMITS if name in fields)] = b"%d" % limit
    return lowered


def _stream_options(raw: msgspec.Raw | bytes | None) -> bytes:
    """The caller's stream options, with usage asked for: what was used has to be known to be charged."""
    if raw is None or raw in (ABSENT, b"null"):
        return _USAGE_ASKED
    given = _decode_options(raw)
    options = {name: value for name, value in given.items() if name.casefold() != "include_usage"}
    options["include_usage"] = msgspec.Raw(b"true")
    return b',"stream_options":' + _encode(options)


CHAT_ACCEPT = b"application/json, text/event-stream"


def host_of(origin: Origin) -> str:
    """The Host field of requests to ``origin``: its name, and its port where that is not the scheme's own."""
    default_port = 443 if origin.scheme == "https" else 80
    name = f"[{origin.host}]" if ":" in origin.host else origin.host  # an IPv6 address (RFC 3986, 3.2.2)
    return name if origin.port == default_port else f"{name}:{origin.port}"


def request_head(
    backend: Backend, path: str, *, content_type: bytes = b"application/json", accept: bytes = b""
) -> bytes:
    """The constant part of the head of a POST to ``backend``: everything but trace, length and the empty line.

    ``accept`` is what an answer may be; empty: what those to chats are.
    """
    origin = backend.origin
    assert origin is not None, "a backend in process has no head"
    lines = [
        f"POST {backend.path}{path} HTTP/1.1".encode(),
        b"host: " + host_of(origin).encode(),
        b"content-type: " + content_type,
        b"accept: " + (accept or _ACCEPTED.get(backend.provider, CHAT_ACCEPT)),
        b"accept-encoding: identity",
        *(name + b": " + value for name, value in backend.headers),
    ]
    return b"\r\n".join(lines) + b"\r\n"
