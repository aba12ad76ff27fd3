"""Usage and its price; pure.

Where a backend reports no usage, tokens are estimated from bytes. Four bytes of English text are about one token
(https://help.openai.com/en/articles/4936856), and an event of a stream carries at least one. The data of an image is no
text: an image of 1024 x 1024 pixels is 765 tokens (https://platform.openai.com/docs/guides/images-vision).
"""

from __future__ import annotations

import msgspec

from gateway.dialects.openai.images import find_images
from gateway.model import ChatRequest, Price, Usage

_BYTES_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 765
_TOKENS_PER_PRICE = 1_000_000


def estimate_usage(request: ChatRequest, output_bytes: int, events: int = 0) -> Usage:
    """The usage of a call whose backend reported none, marked as estimated."""
    messages = bytes(request.fields.get("messages", b""))
    images, data_bytes = find_images(messages)
    return Usage(
        input_tokens=-(-(len(messages) - data_bytes) // _BYTES_PER_TOKEN) + images * _TOKENS_PER_IMAGE,
        output_tokens=max(-(-output_bytes // _BYTES_PER_TOKEN), events),
        estimated=True,
    )


def with_input_of(begun: Usage | None, estimate: Usage) -> Usage:
    """An estimate of what a stream used, its input as it was reported at the start."""
    if begun is None:
        return estimate
    return msgspec.structs.replace(
        begun, output_tokens=max(estimate.output_tokens, begun.output_tokens), estimated=True
    )


def estimate_input(raw: msgspec.Raw | bytes) -> Usage:
    """The usage of a call of embeddings or rerank that reported none: of ``raw`` JSON, text or arrays of tokens."""
    given = bytes(raw)
    tokens = -(-len(given) // _BYTES_PER_TOKEN) if b'"' in given else given.count(b",") + 1
    return Usage(input_tokens=tokens, estimated=True)


def charge(usage: Usage, price: Price | None) -> int:
    """The cost of ``usage`` in nano-USD, rounded once, half up; 0 without a price."""
    if price is None:
        return 0
    total = (
        (usage.input_tokens - usage.cached_input_tokens - usage.cache_written_input_tokens) * price.input_nano_usd
        + usage.cached_input_tokens * price.cached_input_nano_usd
        + usage.cache_written_input_tokens * price.written_nano_usd
        + usage.output_tokens * price.output_nano_usd
    )
    return (total + _TOKENS_PER_PRICE // 2) // _TOKENS_PER_PRICE
