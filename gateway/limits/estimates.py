"""What a call may use at most, from its request and its plan; pure.

Invariants:
- The input bound is never below what a tokenizer that makes at most one token of a byte counts: every byte of every
  field counts, JSON's own included. Only the data of an image inside ``messages`` is left out, and a constant stands
  for the image.
- The output bound is that of the dearest attempt in the plan.

It does not guess what a call will probably use: that is learned where the levels are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.dialects.openai.images import find_images
from gateway.model import Backend, ChatRequest, Frozen, Price

INPUT_UPPER_MAX = 2**40
"""Tokens; beyond any body that could be received, and far below what the levels can count."""


class InputConstants(Frozen, frozen=True):
    """Tokens of what has no bytes of its own; see the settings of the same names."""

    per_message: int = 10
    per_image: int = 2000


def measure_input(request: ChatRequest, constants: InputConstants) -> tuple[int, int]:
    """The input of a call as it will be sent: bytes of text, images left out, and the most tokens of all of it.

    Costs one pass over the messages.
    """
    fields = request.fields
    text_bytes = sum(map(len, fields.values()))
    if request.native is not None:  # which may say more than a chat can
        text_bytes = max(text_bytes, sum(map(len, request.native.fields.values())))
    messages = bytes(fields.get("messages", b""))
    images, data_bytes = find_images(messages)
    if images:
        text_bytes += images * constants.per_image - data_bytes
    upper = text_bytes + (messages.count(b'"role"') + 1) * constants.per_message
    return text_bytes, upper if upper < INPUT_UPPER_MAX else INPUT_UPPER_MAX


def worst_output(attempts: Sequence[Backend]) -> int:
    """The most output tokens of one choice over the attempts, of which there is at least one."""
    if len(attempts) == 1:
        return attempts[0].max_output_tokens
    return max(backend.max_output_tokens for backend in attempts)


def dearest(attempts: Sequence[Backend]) -> Price | None:
    """A price that none of the attempts exceeds, part by part; None where none of them has one."""
    if len(attempts) == 1:
        return attempts[0].price
    prices = [backend.price for backend in attempts if backend.price is not None]
    if not prices:
        return None
    return Price(
        input_nano_usd=max(price.input_nano_usd for price in prices),
        cached_input_nano_usd=max(price.cached_input_nano_usd for price in prices),
        output_nano_usd=max(price.output_nano_usd for price in prices),
        cache_write_nano_usd=max(price.written_nano_usd for price in prices),
    )
