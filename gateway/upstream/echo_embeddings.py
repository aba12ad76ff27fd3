"""Embeddings of the ``echo`` provider: small vectors, the same for the same text, that say nothing of its meaning.

They are of unit length, as those of most models are, and of 8 numbers where the request does not say how many.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Callable
from typing import TypeVar

import msgspec

from gateway.errors import InvalidRequest
from gateway.model import Backend, ChatRequest

DIMENSIONS = 8
_DIMENSIONS_MAX = 4096
_INPUTS_MAX = 2048  # as with OpenAI
_INPUT_BYTES_MAX = 1_048_576
_BYTES_PER_NUMBER = 2
_T = TypeVar("_T")

_decode_texts = msgspec.json.Decoder(str | list[str | int | list[int]]).decode
_decode_int = msgspec.json.Decoder(int | None).decode
_decode_str = msgspec.json.Decoder(str | None).decode
_encode = msgspec.json.Encoder().encode


def echo_embeddings(backend: Backend, request: ChatRequest) -> bytes:
    """The body that answers ``request``. Raises InvalidRequest."""
    if len(request.fields.get("input", b"")) > _INPUT_BYTES_MAX:
        raise InvalidRequest(f"`input` must not be longer than {_INPUT_BYTES_MAX} bytes.", param="input")
    inputs = _inputs(_value(request, "input", _decode_texts, "a string, or an array of strings or tokens") or "")
    dimensions = _value(request, "dimensions", _decode_int, "an integer") or DIMENSIONS
    if not 1 <= dimensions <= _DIMENSIONS_MAX:
        raise InvalidRequest(f"`dimensions` must be between 1 and {_DIMENSIONS_MAX}.", param="dimensions")
    packs = _value(request, "encoding_format", _decode_str, "a string") == "base64"
    vectors = [_vector(each, dimensions) for each in inputs]
    tokens = sum(len(each.split()) if isinstance(each, str) else len(each) for each in inputs)
    return _encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _packed(vector) if packs else vector}
                for index, vector in enumerate(vectors)
            ],
            "model": backend.model or "echo",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _value(
    request: ChatRequest, name: str, decode: Callable[[msgspec.Raw | bytes], _T | None], expected: str
) -> _T | None:
    try:
        return decode(request.fields.get(name, b"null")) if name in request.fields else None
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{name}` must be {expected}.", code="invalid_type", param=name) from None


def _inputs(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    numbers = [each for each in given if isinstance(each, int)]
    if numbers and len(numbers) == len(given):
        return [numbers]
    inputs = [each for each in given if not isinstance(each, int)]
    if numbers or len(inputs) > _INPUTS_MAX:
        raise InvalidRequest(f"`input` must be at most {_INPUTS_MAX} strings or arrays of tokens.", param="input")
    return inputs


def _vector(text: str | list[int], dimensions: int) -> list[float]:
    seed = hashlib.shake_128(_encode(text)).digest(dimensions * _BYTES_PER_NUMBER)
    numbers = struct.unpack(f"<{dimensions}h", seed)
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [round(number / length, 6) for number in numbers]


def _packed(vector: list[float]) -> str:
    """Little-endian floats of 32 bits in base64, as OpenAI's ``encoding_format`` has them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
