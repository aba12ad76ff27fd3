"""What is asked of models beside chat completions: requests read and written, answers read. Pure.

The same invariants hold as for chat requests: the body that leaves is put together from the very fields that were read,
each once, and what the gateway has no business with leaves as the bytes it came as.

Sources: https://platform.openai.com/docs/api-reference/ (embeddings, moderations, images, audio),
https://docs.cohere.com/reference/rerank and https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
(rerank).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.dialects.openai.members import read_members
from gateway.dialects.openai.request import field_of, missing, refuse_other_spellings
from gateway.dialects.openai.usage import ABSENT, ERROR_OBJECT
from gateway.errors import AttemptFailed, InvalidRequest
from gateway.model import Backend, ChatRequest, Frozen, Operation, Usage

_CHOICES_MAX = 128
_NAMES = ("model", "stream", "n", "stream_format")


class Shape(Frozen, frozen=True):
    """One operation. ``path`` follows a backend's own; ``name`` is its ``gen_ai.operation.name``.

    ``needs`` is the field that a request must have, ``gives`` the member that proves an answer to be one ("": none).
    ``has_output``: it may report output tokens, and so is bounded by what its backend gives at most. ``counts_input``:
    its input is estimated where no usage is reported. ``batched`` is the field whose items may go out in several calls.
    """

    path: str
    name: str
    needs: str
    gives: str = ""
    has_output: bool = True
    counts_input: bool = False
    batched: str = ""


SHAPES: Final[Mapping[Operation, Shape]] = MappingProxyType(
    {
        "embeddings": Shape(
            path="/embeddings",
            name="embeddings",
            needs="input",
            gives="data",
            has_output=False,
            counts_input=True,
            batched="input",
        ),
        "rerank": Shape(
            path="/rerank",
            name="rerank",
            needs="documents",
            gives="results",
            has_output=False,
            counts_input=True,
            batched="documents",
        ),
        "moderations": Shape(path="/moderations", name="moderation", needs="input", gives="results", has_output=False),
        "images": Shape(path="/images/generations", name="image_generation", needs="prompt", gives="data"),
        "speech": Shape(path="/audio/speech", name="speech", needs="input"),
        "transcriptions": Shape(path="/audio/transcriptions", name="transcription", needs="file"),
        "translations": Shape(path="/audio/translations", name="translation", needs="file"),
    }
)

UPLOADED: Final = frozenset({"transcriptions", "translations"})
"""Operations whose request is a form with a file."""

_decode_str = msgspec.json.Decoder(str | None).decode
_decode_bool = msgspec.json.Decoder(bool | None).decode
_decode_int = msgspec.json.Decoder(int | None).decode
_encode = msgspec.json.Encoder().encode
_EMPTY = frozenset({b"null", b"[]", b'""'})


def read_operation(operation: Operation, body: bytes, max_members: int) -> ChatRequest:
    """Read the JSON body of an operation. Raises InvalidRequest; ``param`` names the field."""
    shape = SHAPES[operation]
    fields = read_members(body, max_members)
    refuse_other_spellings(fields, frozenset({*_NAMES, shape.needs}))
    model = field_of(fields, "model", _decode_str, "a string")
    if model is None:
        raise missing("model")
    if not model:
        raise InvalidRequest("`model` must not be empty.", param="model")
    needed = fields.get(shape.needs)
    if needed is None:
        raise missing(shape.needs)
    if len(needed) < 16 and b"".join(bytes(needed).split()) in _EMPTY:
        raise InvalidRequest(f"`{shape.needs}` must not be empty.", param=shape.needs)
    return request_of(operation, model, fields, len(body))


def request_of(
    operation: Operation, model: str, fields: Mapping[str, msgspec.Raw | bytes], body_bytes: int
) -> ChatRequest:
    """The request of these fields, those decoded that limit or bill. Raises InvalidRequest."""
    shape = SHAPES[operation]
    choices = field_of(fields, "n", _decode_int, "an integer") if operation == "images" else None
    if choices is not None and not 1 <= choices <= _CHOICES_MAX:
        raise InvalidRequest(f"`n` must be between 1 and {_CHOICES_MAX}.", param="n")
    return ChatRequest(
        model=model,
        fields=fields,
        stream=_streams(operation, fields),
        max_output_tokens=None if shape.has_output else 0,
        choices=choices or 1,
        body_bytes=body_bytes,
        operation=operation,
    )


def _streams(operation: Operation, fields: Mapping[str, msgspec.Raw | bytes]) -> bool:
    """Whether events are asked for."""
    if operation == "speech":
        return field_of(fields, "stream_format", _decode_str, "a string") == "sse"
    return operation == "images" and bool(field_of(fields, "stream", _decode_bool, "a boolean"))


def encode_operation(request: ChatRequest, backend: Backend, fields: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    """The body to send: the backend's name of the model, and all that it takes of ``fields`` as it came."""
    parts: list[bytes | msgspec.Raw] = [b'{"model":', _encode(backend.model or request.model)]
    for name, raw in fields.items():
        if name != "model" and name.casefold() not in backend.unsupported_fields:
            parts += (b"," + _encode(name) + b":", raw)
    parts.append(b"}")
    return b"".join(parts)


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    """Every name that a count goes by; audio that is billed by its length reports seconds, which are no tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _Counts(msgspec.Struct):
    input_tokens: float | None = None  # Cohere writes whole numbers as fractions
    output_tokens: float | None = None


class _Meta(msgspec.Struct):
    billed_units: _Counts | None = None
    tokens: _Counts | None = None


class _Loose(msgspec.Struct):
    error: msgspec.Raw = ABSENT
    object: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    meta: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT
    results: msgspec.Raw = ABSENT


_decode_loose = msgspec.json.Decoder(_Loose).decode
_decode_usage = msgspec.json.Decoder(_Usage | None).decode
_decode_meta = msgspec.json.Decoder(_Meta | None).decode
_COUNT_MAX = 1 << 40


def read_answer(operation: Operation, body: bytes) -> Usage | None:
    """The usage that the body of a 200 reports, None where it reports none. Raises AttemptFailed for no answer."""
    shape = SHAPES[operation]
    try:
        answer = _decode_loose(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AttemptFailed("protocol_error", f"the body of a 200 is no {shape.name}: {error}") from None
    if answer.error != ABSENT or answer.object == ERROR_OBJECT:
        raise AttemptFailed("error_in_body", "a 200 whose body is an error")
    if shape.gives and getattr(answer, shape.gives) == ABSENT:
        raise AttemptFailed("protocol_error", f"the body of a 200 has no {shape.gives}")
    return reported(answer.usage) or _billed(answer.meta)


def reported(raw: msgspec.Raw) -> Usage | None:
    """What a ``usage`` member counts; None where it makes no sense, or counts no tokens."""
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    if usage is None:
        return None
    given = usage.prompt_tokens if usage.input_tokens is None else usage.input_tokens
    made = usage.completion_tokens if usage.output_tokens is None else usage.output_tokens
    if given is None and usage.total_tokens is not None:
        given = usage.total_tokens - (made or 0)
    details = usage.input_tokens_details or usage.prompt_tokens_details
    return _usage(given, made, None if details is None else details.cached_tokens)


def _billed(raw: msgspec.Raw) -> Usage | None:
    """What Cohere's ``meta`` counts; search units are no tokens."""
    try:
        meta = _decode_meta(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    for counts in () if meta is None else (meta.billed_units, meta.tokens):
        if counts is not None and (counts.input_tokens is not None or counts.output_tokens is not None):
            return _usage(int(counts.input_tokens or 0), int(counts.output_tokens or 0), None)
    return None


def _usage(given: int | None, made: int | None, cached: int | None) -> Usage | None:
    counts = [given or 0, made or 0, cached or 0]
    if (given is None and made is None) or not all(0 <= count <= _COUNT_MAX for count in counts):
        return None
    return Usage(input_tokens=counts[0], output_tokens=counts[1], cached_input_tokens=min(counts[2], counts[0]))
