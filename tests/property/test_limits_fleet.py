"""Whatever befalls calls, gateways and Redis: bounds hold, leases end once, the ledger is the backends' own count.

Each example makes a tenant with limits of its own on a fleet that serves all examples, and lets calls loose on several
gateways at once while Redis stalls, loses answers or forgets, and gateways are killed. After each, and again after all
gateways have ended, the books are compared.

``LIMIT_EXAMPLES=100`` asks for so many examples, others each time (or those of ``--hypothesis-seed``).
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.documents import Document, api_key, tenant
from tests.support.limit_arena import SLOT_S, Arena, FaultKind
from tests.support.limit_books import Books, scope_of
from tests.support.limit_calls import CALLS_MAX, CUT, UNREACHED, Call, Fate, Way, make_call
from tests.support.waiting import eventually

ASKED = os.environ.get("LIMIT_EXAMPLES")
EXAMPLES = int(ASKED or 10)
GATEWAYS = 3
CALLERS = 10
SETTLED_S = 15.0


@dataclass(frozen=True)
class Fault:
    """Something that befalls Redis."""

    kind: FaultKind
    after_s: float
    for_s: float


@dataclass(frozen=True)
class Round:
    """Calls as (way, key, scenario, gateway, output cap, patience), and what befalls meanwhile."""

    calls: list[tuple[Way, str, str, int, int | None, float]]
    fault: Fault | None
    kill: tuple[int, float] | None


def limits_of(units: list[tuple[str, str | None, Any]], names: str) -> st.SearchStrategy[list[Document]]:
    """Some limits out of (unit, period, strategy of the amount), each of any scenario and policy."""
    kinds = [
        st.fixed_dictionaries(
            {"unit": st.just(unit), "amount": amount}
            | ({} if per is None else {"per": st.just(per)})
            | {"scenario": st.sampled_from((None, None, "chat", "talk"))}
            | {"mode": st.sampled_from(("enforce",) * 4 + ("shadow",))}
        )
        for unit, per, amount in units
    ]
    found: st.SearchStrategy[list[Document]] = st.lists(st.one_of(kinds), min_size=1, max_size=2)
    return found.map(lambda each: [_named(limit, f"{names}{place}") for place, limit in enumerate(each)])


def _named(limit: Document, name: str) -> Document:
    burst = {"burst": max(limit["amount"] // 8, 1)} if limit.get("per") in ("second", "minute", "hour") else {}
    return {key: value for key, value in limit.items() if value is not None} | burst | {"name": name}


def policies(limits: list[Document], policy: str) -> list[Document]:
    """The same with what they do without Redis."""
    return [limit | {"onRedisLoss": policy} for limit in limits]


BUDGETS: list[tuple[str, str | None, Any]] = [
    ("tokens", "day", st.integers(1000, 10_000)),
    ("outputTokens", "day", st.integers(500, 4000)),
    ("inputTokens", "month", st.integers(800, 5000)),
    ("cost", "day", st.sampled_from(("2", "5.333333333", "15"))),
    ("requests", "day", st.integers(8, 60)),
]
RATES: list[tuple[str, str | None, Any]] = [
    ("requests", "minute", st.integers(24, 240)),
    ("requests", "second", st.integers(8, 40)),
    ("tokens", "minute", st.integers(10_000, 100_000)),
    ("outputTokens", "second", st.integers(1000, 8000)),
]
PLACES: list[tuple[str, str | None, Any]] = [("concurrency", None, st.integers(2, 8))]

CALLS = st.tuples(
    st.sampled_from(("plain", "plain", "stream", "stream", *get_args(Way))),
    st.sampled_from("ab"),
    st.sampled_from(("chat", "chat", "talk")),
    st.integers(0, GATEWAYS - 1),
    st.sampled_from((None, 1, 30, 500)),
    st.sampled_from((0.0, 0.004, 0.012, 0.03)),
)
FAULTS = st.builds(
    Fault,
    st.sampled_from(get_args(FaultKind)),
    st.sampled_from((0.0, 0.02, 0.06)),
    st.sampled_from((0.05, 0.2, 0.5)),
)
ROUNDS = st.builds(
    Round,
    st.lists(CALLS, min_size=20, max_size=CALLS_MAX // 2 - 2),
    FAULTS | st.none(),
    st.tuples(st.integers(0, GATEWAYS - 1), st.sampled_from((0.01, 0.05, 0.1))) | st.none(),
)
TENANT_LIMITS = st.tuples(limits_of(BUDGETS + RATES, "n"), limits_of(PLACES, "p")).map(lambda both: both[0] + both[1])
KEY_LIMITS = limits_of(BUDGETS + RATES + PLACES, "k")
POLICY = st.sampled_from(("closed", "closed", "closed", "local", "open"))


class Game:
    """One example: a tenant with two keys of which one has limits of its own."""

    def __init__(self, arena: Arena, name: str, of_tenant: list[Document], of_key: list[Document]) -> None:
        self._arena = arena
        self._name = name
        self._numbers = itertools.count()
        scopes = [scope_of(each, None) for each in of_tenant] + [scope_of(each, f"{name}-a") for each in of_key]
        documents = [
            tenant(name, limits=of_tenant),
            api_key(f"{name}-a", self._secret("a"), name, limits=of_key),
            api_key(f"{name}-b", self._secret("b"), name),
        ]
        arena.add(name, documents, self._secret("a"))
        self.books = Books(arena, name, scopes)

    def whole(self, rounds: list[Round]) -> Books:
        """Play it; the closed books."""
        for each in rounds:
            self.play(each)
            eventually(self.books.check, SETTLED_S, every_s=0.1)
        self.last_calls()
        eventually(self.books.check, SETTLED_S, every_s=0.1)
        return self.books

    def play(self, each: Round) -> None:
        """Let the calls of a round loose, and heal what was broken by it."""
        calls = [self._call(*parts) for parts in each.calls]
        arena, fault, kill = self._arena, each.fault, each.kill
        with ThreadPoolExecutor(CALLERS + 2) as pool:
            done = [] if fault is None else [pool.submit(arena.disturb, fault.kind, fault.after_s, fault.for_s)]
            done += [] if kill is None else [pool.submit(arena.kill, *kill)]
            fates = list(pool.map(self._make, calls))
            for future in done:
                future.result()
        killed = None if kill is None else kill[0]
        for fate in fates:
            is_killed = fate.call.at == killed
            assert is_killed or fate.status not in (CUT, UNREACHED), f"a living gateway ended a connection: {fate}"
            self.books.fates.append(replace(fate, killed=is_killed))
        if killed is not None:
            arena.replace(killed)

    def last_calls(self) -> None:
        """After the places of the dead have expired, nobody is refused for want of one."""
        eventually(lambda: self.books.places_held() == 0, SLOT_S + 3, what="the places of the dead are free")
        for key, scenario in itertools.product("ab", ("chat", "talk")):
            fate = self._make(self._call("plain", key, scenario, 0, 10, 0.0))
            self.books.fates.append(fate)
            assert "concurrent requests" not in fate.text

    def _call(self, way: Way, key: str, scenario: str, at: int, cap: int | None, stays_s: float) -> Call:
        return Call(self._name, next(self._numbers), way, f"{self._name}-{key}", scenario, at, cap, stays_s)

    def _make(self, call: Call) -> Fate:
        return make_call(self._arena.gateways[call.at], call, self._secret(call.key[-1]))

    def _secret(self, key: str) -> str:
        return f"test-key-{key}-of-tenant-{self._name}"


@pytest.mark.timeout(60 + 30 * EXAMPLES)
def test_no_fate_of_calls_breaks_a_bound_or_the_books() -> None:
    """Random limits and random interleavings on several gateways, some of which die."""
    numbers = itertools.count()
    played: list[Books] = []
    failures: list[Exception] = []  # the first is the one to show: time is not replayed
    with Arena(GATEWAYS) as arena:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=ASKED is None,
            database=None,
            phases=(Phase.generate,),  # for the same reason there is nothing to shrink
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(
            of_tenant=TENANT_LIMITS,
            of_key=KEY_LIMITS,
            policy=POLICY,
            rounds=st.lists(ROUNDS, min_size=2, max_size=2),
        )
        def example(of_tenant: list[Document], of_key: list[Document], policy: str, rounds: list[Round]) -> None:
            if failures:
                raise failures[0]
            try:
                limits = (policies(of_tenant, policy), policies(of_key, policy))
                played.append(Game(arena, f"t{next(numbers)}", *limits).whole(rounds))
            except Exception as failure:
                failures.append(failure)
                raise

        example()
        arena.stop_gateways()
        for books in played:
            assert books.check()
