"""The judgement: patient with a healthy canary, quick with a bad one."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Abort
from gateway.rollout.evidence import PANES, add
from gateway.rollout.judge import Z, judge, least_share

ABORT = Abort(error_ratio=0.05, first_token_p95_s=1.0, min_requests=50)
PANE_CALLS = 100


def life(chance: random.Random, calls: int, failing: float, slow: float) -> int | None:
    """After how many calls a canary is withdrawn, judged every ten calls; None where it is not."""
    panes: list[dict[str, int]] = [{}]
    for number in range(1, calls + 1):
        if panes[0].get("requests", 0) >= PANE_CALLS:
            panes = [{}, *panes[: PANES - 1]]
        seen = {"requests": 1, "streams": 1, "h10": 1}
        seen |= {"failures": 1} if chance.random() < failing else {}
        seen |= {"slow": 1} if chance.random() < slow else {}
        add(panes[0], seen)
        if number % 10 == 0 and judge(ABORT, panes):
            return number
    return None


def test_a_healthy_canary_is_never_withdrawn() -> None:
    """200 canaries with 1 % failures and 1 % late tokens, 2000 calls each, judged 200 times each."""
    chance = random.Random(1)
    assert [life(chance, 2000, 0.01, 0.01) for _ in range(200)] == [None] * 200


@pytest.mark.parametrize(("failing", "slow"), [(0.2, 0.0), (0.0, 0.3), (1.0, 0.0), (0.0, 1.0)])
def test_a_bad_canary_is_always_withdrawn_soon(failing: float, slow: float) -> None:
    """200 canaries that fail a fifth of their calls, or are late, each within 200 calls."""
    chance = random.Random(2)
    lives = [life(chance, 1000, failing, slow) for _ in range(200)]
    assert all(each is not None and ABORT.min_requests <= each <= 200 for each in lives), max(map(str, lives))


def test_a_canary_that_goes_bad_is_not_covered_by_its_past() -> None:
    """After five panes without a failure, one that fails a fifth of its calls is judged by the newest."""
    good: dict[str, int] = {"requests": 10_000}
    assert judge(ABORT, [{"requests": 60, "failures": 12}, *[good] * (PANES - 1)])
    assert not judge(ABORT, [{"requests": 49, "failures": 12}, *[good] * (PANES - 1)])


def test_few_calls_are_no_evidence() -> None:
    """Below minRequests nothing is judged; with older panes it may be enough."""
    assert not judge(ABORT, [{"requests": 49, "failures": 49, "streams": 49, "slow": 49}])
    assert judge(ABORT, [{"requests": 49, "failures": 49}, {"requests": 1, "failures": 1}])
    assert judge(ABORT, [{"requests": 50, "failures": 50}])
    assert not judge(ABORT, [])


def test_a_bound_that_is_not_set_is_not_judged() -> None:
    """Each bound stands alone."""
    failing, slow = {"requests": 100, "failures": 100}, {"streams": 100, "slow": 100}
    assert not judge(Abort(first_token_p95_s=1.0), [failing])
    assert not judge(Abort(error_ratio=0.5), [slow])
    assert judge(Abort(error_ratio=0.0), [{"requests": 100, "failures": 1}])
    assert not judge(Abort(error_ratio=0.0), [{"requests": 100}])


def test_the_reason_says_what_was_seen_and_what_was_allowed() -> None:
    """An operator needs no other source."""
    assert judge(ABORT, [{"requests": 60, "failures": 12}]) == (
        "12 of 60 calls failed, which is more than the 5.00% of errorRatio"
    )
    assert judge(ABORT, [{"streams": 60, "slow": 30, "h10": 30, "h12": 30}]) == (
        "30 of 60 first tokens came after the 1 s of firstTokenP95; their p95 is about 2.5 s"
    )
    assert "beyond the largest bucket" in judge(ABORT, [{"streams": 60, "slow": 60, "h19": 60}])


@given(st.integers(1, 10_000), st.data())
def test_the_least_share_is_where_the_share_seen_is_just_not_unlikely(count: int, data: st.DataObject) -> None:
    """Wilson's definition: at the lower end p, the share seen lies Z standard deviations of p above it."""
    hits = data.draw(st.integers(1, count))
    p = least_share(hits, count)
    assert 0 < p < hits / count
    assert (hits / count - p) / math.sqrt(p * (1 - p) / count) == pytest.approx(Z, rel=1e-6)
