"""Usage and its price."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.meter import charge, estimate_usage, with_input_of
from gateway.model import ChatRequest, Price, Usage

TOKENS = st.integers(0, 10**9)
PRICES = st.integers(0, 10**12)


@given(TOKENS, TOKENS, TOKENS, PRICES, PRICES, PRICES)
def test_the_cost_is_exact_and_rounded_once(
    tokens: int, cached: int, output: int, input_price: int, cached_price: int, output_price: int
) -> None:
    """Integer arithmetic, rounded half up to a nano-dollar at the very end."""
    cached = min(cached, tokens)
    usage = Usage(input_tokens=tokens, cached_input_tokens=cached, output_tokens=output)
    price = Price(input_nano_usd=input_price, cached_input_nano_usd=cached_price, output_nano_usd=output_price)
    exact = Fraction((tokens - cached) * input_price + cached * cached_price + output * output_price, 1_000_000)
    cost = charge(usage, price)
    assert -Fraction(1, 2) < cost - exact <= Fraction(1, 2)


@pytest.mark.parametrize(("tokens", "cost"), [(1, 1), (2, 1), (3, 2), (0, 0)])
def test_halves_round_up(tokens: int, cost: int) -> None:
    """Half a nano-dollar per token: 0.5 is 1, 1.0 is 1, 1.5 is 2."""
    price = Price(input_nano_usd=500_000, cached_input_nano_usd=0, output_nano_usd=0)
    assert charge(Usage(input_tokens=tokens), price) == cost


def test_cached_input_has_its_own_price() -> None:
    """Cached tokens are a part of the input and are not charged twice."""
    price = Price(input_nano_usd=1_000_000, cached_input_nano_usd=100_000, output_nano_usd=2_000_000)
    assert charge(Usage(input_tokens=10, cached_input_tokens=10, output_tokens=1), price) == 1 + 2


def test_input_that_is_written_to_a_cache_has_its_own_price() -> None:
    """It is a part of the input, too; without a price of its own it costs as other input."""
    price = Price(
        input_nano_usd=1_000_000, cached_input_nano_usd=100_000, output_nano_usd=0, cache_write_nano_usd=1_250_000
    )
    usage = Usage(input_tokens=17, cached_input_tokens=10, cache_written_input_tokens=4)
    assert charge(usage, price) == 3 + 1 + 5
    assert charge(usage, msgspec.structs.replace(price, cache_write_nano_usd=None)) == 3 + 1 + 4
    assert price.dearest_input_nano_usd == 1_250_000


def test_input_that_was_reported_at_the_start_is_no_estimate() -> None:
    """Of a stream that was cut: its output alone is estimated, and is no less than what was reported of it."""
    begun = Usage(input_tokens=300, cached_input_tokens=200, output_tokens=9)
    estimate = Usage(input_tokens=5, output_tokens=7, estimated=True)
    assert with_input_of(begun, estimate) == msgspec.structs.replace(begun, estimated=True)
    assert with_input_of(msgspec.structs.replace(begun, output_tokens=1), estimate).output_tokens == 7
    assert with_input_of(None, estimate) is estimate


def test_without_a_price_nothing_is_charged() -> None:
    """A backend without a price costs nothing."""
    assert charge(Usage(input_tokens=10**9), None) == 0


def test_estimates_are_marked_and_never_below_the_events() -> None:
    """Four bytes a token, rounded up; an event of a stream carries at least one."""
    request = ChatRequest(model="m", fields={"messages": b"x" * 9})
    assert estimate_usage(request, 5) == Usage(input_tokens=3, output_tokens=2, estimated=True)
    assert estimate_usage(request, 5, events=7).output_tokens == 7
    assert estimate_usage(request, 0).output_tokens == 0


def test_the_data_of_an_image_is_no_text() -> None:
    """An image is so many tokens, however large its file."""
    part = b'[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}]}]'
    small, large = [ChatRequest(model="m", fields={"messages": part % (b"A" * size)}) for size in (4, 400_000)]
    assert estimate_usage(large, 0) == estimate_usage(small, 0)
    assert 765 < estimate_usage(large, 0).input_tokens < 850
