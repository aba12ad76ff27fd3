"""The bounds that the limits promise, for any sequence of calls, on a real server and counted from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Usage
from tests.support.limit_server import NOON_MS, LimitServer, limit, limit_server


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    """One server for all examples; each begins with it empty."""
    with limit_server() as started:
        yield started


@settings(max_examples=40, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 60)), min_size=5, max_size=60),
    burst=st.integers(20, 50),
    rate=st.integers(1, 40),
)
def test_reservations_in_any_time_stay_within_burst_and_rate(
    server: LimitServer, calls: list[tuple[int, int]], burst: int, rate: int
) -> None:
    """In any T seconds at most burst + rate x T, plus the excess of one oversized call."""
    server.client.flushall()
    server.set_time(NOON_MS)
    bound = limit("ops", "outputTokens", rate, "second", burst=burst)
    admitted: list[tuple[int, int]] = []
    for number, (pause_ms, tokens) in enumerate(calls):
        server.advance(pause_ms)
        if server.admit(f"c{number}", [bound], output_cap=tokens, worst_output=tokens).admitted:
            admitted.append((server.now_ms, tokens))
    for first in range(len(admitted)):
        total = excess = 0
        for at_ms, tokens in admitted[first:]:
            total += tokens
            excess = max(excess, tokens - burst)
            assert total * 1000 <= burst * 1000 + rate * (at_ms - admitted[first][0]) + max(excess, 0) * 1000


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200), st.integers(0, 100)), min_size=3, max_size=30),
    budget=st.integers(1, 2000),
)
def test_a_budget_is_never_exceeded_by_one_token(
    server: LimitServer, asked: list[tuple[int, int, int]], budget: int
) -> None:
    """Whatever calls come, what they were allowed to use never adds up to more than the budget."""
    server.client.flushall()
    server.set_time(NOON_MS)
    bound = limit("tpd", "tokens", budget, "day")
    spent = 0
    for number, (input_upper, output, share) in enumerate(asked):
        reply = server.admit(f"c{number}", [bound], input_upper=input_upper, output_cap=None, worst_output=output)
        if reply.admitted:
            assert reply.output_limit is not None
            usage = Usage(input_tokens=input_upper * share // 100, output_tokens=reply.output_limit)
            spent += usage.input_tokens + usage.output_tokens
            assert spent <= budget
            server.settle(f"c{number}", [bound], usage)
        assert server.used(bound) == (spent,)
