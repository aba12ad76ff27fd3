"""Calls that one run of a script decides on or ends, against the same calls one after the other: no difference is left,
neither in what each is answered nor in anything that the server keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.limits.wire import BoundLimit, LimitSet
from gateway.model import Price, Usage
from tests.support.limit_server import CHEAP, NOON_MS, TENANT, LimitServer, asking, ending, limit, limit_server

LIMITS = (
    limit("rpm", "requests", 70, "minute", burst=5),
    limit("tpm", "tokens", 301, "minute"),
    limit("opm", "outputTokens", 97, "minute", mode="shadow"),
    limit("two", "concurrency", 2),
    limit("shadow-one", "concurrency", 1, mode="shadow"),
    limit("rpd", "requests", 9, "day"),
    limit("tpd", "tokens", 300, "day"),
    limit("ipm", "inputTokens", 500, "month"),
    limit("usd", "cost", 401, "month"),
    limit("shadow-usd", "cost", 300, "day", mode="shadow"),
)
FIRST = "first"

ASKED = st.fixed_dictionaries(
    {
        "input_upper": st.integers(1, 60),
        "text_bytes": st.integers(1, 200),
        "output_cap": st.sampled_from((None, 5, 40)),
        "worst_output": st.integers(1, 60),
        "choices": st.sampled_from((1, 1, 3)),
        "price": st.sampled_from((CHEAP, Price(input_nano_usd=0, cached_input_nano_usd=0, output_nano_usd=0))),
    }
)
ENDED = st.fixed_dictionaries(
    {
        "lease": st.integers(0, 7),
        "usage": st.none()
        | st.builds(Usage, input_tokens=st.integers(0, 90), output_tokens=st.integers(0, 9), estimated=st.booleans()),
        "keep": st.booleans(),
        "text_bytes": st.integers(0, 200),
    }
)
TURN = st.one_of(
    st.tuples(st.just("admit"), st.lists(ASKED, min_size=1, max_size=6)),
    st.tuples(st.just("settle"), st.lists(ENDED, min_size=1, max_size=6)),
    st.tuples(st.just("advance"), st.sampled_from((700, 20_000, 31_000, 31_000, 86_400_000))),
)


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    """One server for all examples; each begins with it empty."""
    with limit_server() as started:
        yield started


ONE = {"input_upper": 50, "text_bytes": 100, "output_cap": 5, "worst_output": 5, "choices": 1, "price": CHEAP}


def _used(lease: int, tokens: int) -> dict[str, Any]:
    return {"lease": lease, "usage": Usage(input_tokens=tokens), "keep": False, "text_bytes": 0}


@example(  # what is given back of a bucket that is full again is gone before the next call is charged
    limits=[LIMITS[1]],
    turns=[("admit", [ONE, ONE]), ("advance", 31_000), ("settle", [_used(0, 0), _used(1, 90)])],
)
@example(  # a place that has expired is free for the second call, though the first has just taken one
    limits=[LIMITS[3]], turns=[("admit", [ONE]), ("advance", 31_000), ("admit", [ONE, ONE])]
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(st.sampled_from(LIMITS), unique_by=lambda bound: bound.id, min_size=1, max_size=3),
    turns=st.lists(TURN, min_size=3, max_size=7),
)
def test_together_is_one_after_the_other(server: LimitServer, limits: list[BoundLimit], turns: list[Any]) -> None:
    """Admissions, refusals, repeated leases, repeated and unknown ends, at any time."""
    kind = LimitSet(TENANT, tuple(limits))
    one_by_one = _play(server, kind, turns, together=False)
    assert _play(server, kind, turns, together=True) == one_by_one


def _play(server: LimitServer, kind: LimitSet, turns: list[Any], *, together: bool) -> list[Any]:
    """What each call was answered, then everything that the server has."""
    server.client.flushall()
    server.set_time(NOON_MS + 719 * 60_000)
    server.admit(FIRST, [limit("much", "requests", 1000, "day")])  # the levels have an epoch
    answers: list[Any] = []
    leases = 0
    for what, given_ in turns:
        if what == "advance":
            server.advance(given_)
            continue
        if what == "admit":
            calls = [asking(f"lease-{(leases + at) % 7}", kind, **fields) for at, fields in enumerate(given_)]
            leases += len(calls)
            for group in _groups(calls, together):
                answers += [_told(reply) for reply in server.admit_together(group)]
            continue
        ends = [_end(server, kind, **fields) for fields in given_]
        for group in _groups(ends, together):
            answers += server.settle_together(group).outcomes
    return [*answers, *_kept(server)]


def _groups(calls: list[Any], together: bool) -> list[list[Any]]:
    return [calls] if together else [[call] for call in calls]


def _end(server: LimitServer, kind: LimitSet, lease: int, usage: Usage | None, keep: bool, text_bytes: int) -> Any:
    at = {"admitted_ms": server.now_ms - 5_000, "ended_at": NOON_MS / 1000}
    return ending(f"lease-{lease}", kind, usage, keep=keep, text_bytes=text_bytes, **at)


def _told(reply: Any) -> tuple[Any, ...]:
    decision = (reply.refused_place, reply.retry_after_ms, reply.output_bound)
    return (*decision, reply.input_estimate, reply.output_estimate, tuple(sorted(reply.shadowed)), reply.levels)


def _kept(server: LimitServer) -> list[Any]:
    """Every key with its value, and whether it expires; of an event all but its id, which is by the server's clock."""
    client = server.client
    kept: list[Any] = []
    for key in sorted(client.keys("*")):
        kind = client.type(key)
        value: Any = None
        if kind == b"hash":
            value = client.hgetall(key)
        elif kind == b"zset":
            value = client.zrange(key, 0, -1, withscores=True)
        elif kind == b"stream":
            value = [fields for _, fields in client.xrange(key)]
        else:
            value = client.get(key)
        kept.append((key, value, client.pttl(key) > 0))
    return kept
