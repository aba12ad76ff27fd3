"""Limits kept by this process alone, for the time in which the shared levels cannot be reached.

Each limit is worth its amount divided by the replicas last known alive, and starts from the level last seen. The rules
are those of the shared levels, made simple: a call is checked against all its limits and takes from all or none; rates
are token buckets that may fall into debt, and a call larger than a bucket passes on a full one only; budgets reserve
the worst case. Invariants: what the replicas admit together stays within the amounts as long as all of them were known;
a level that is seen again takes nothing back from the budgets of calls that were let in here and still run.
It does not learn, and what it counted is forgotten once the shared levels answer again: they are told of every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from gateway.limits.windows import RATE_PERIODS_S, is_budget, window_of
from gateway.limits.wire import BoundLimit
from gateway.model import Frozen, Limit, LimitUnit

STATES_MAX: Final = 10_000
"""Limits with a state of their own; beyond it the oldest state is forgotten and starts anew."""

CONCURRENCY_RETRY_S: Final = 1.0
"""When to look again for a place that another call holds."""

Key = tuple[str, str]
"""Tenant and id of a limit."""


class Need(Frozen, frozen=True):
    """What a call takes of each unit: as expected, for rates, and at worst, for budgets. Costs in nano-USD."""

    expected: Mapping[LimitUnit, int]
    worst: Mapping[LimitUnit, int]


class Seen(NamedTuple):
    """A level as it was last known: what was left, and when, in Unix seconds by our clock."""

    left: int
    at_s: float


class Shortage(NamedTuple):
    """Which limit of a call has no room (its place in the list), and when it will have."""

    place: int
    retry_after_s: float


Running = dict[tuple[Key, float], int]
"""What running calls have taken of budgets, by limit and end of the window."""


class Hold:
    """What a call has taken; ``settle`` it once with what it used."""

    __slots__ = ("_running", "_taken")

    def __init__(self, taken: list[tuple[_State, LimitUnit, int, float]], running: Running) -> None:
        self._taken = taken
        self._running = running
        for state, _, amount, window_end_s in taken:
            state.left -= amount
            if window_end_s and amount:
                place = (state.key, window_end_s)
                running[place] = running.get(place, 0) + amount

    def settle(self, used: Mapping[LimitUnit, int] | None) -> None:
        """Give back what was not used, or take what was used beyond; the request itself stays taken.

        None: all of it stays taken.
        """
        taken, self._taken = self._taken, []
        for state, unit, amount, window_end_s in taken:
            if window_end_s and amount:
                place = (state.key, window_end_s)
                self._running[place] -= amount
                if not self._running[place]:
                    del self._running[place]
            if used is not None and unit != "requests" and state.window_end_s == window_end_s:
                state.left += amount - used.get(unit, 0)


class _State:
    """What is left of one limit's share. A rate's refills with time, a budget's at the turn of its window."""

    __slots__ = ("at_s", "capacity", "key", "left", "rate", "since_s", "window_end_s")

    def __init__(self, key: Key, since_s: float) -> None:
        self.key = key
        self.since_s = since_s
        self.left = self.capacity = self.rate = self.at_s = self.window_end_s = 0.0


class LocalLimits:
    """The local states; ``seen`` says what was last known of a limit, ``slots`` how many calls hold one here."""

    def __init__(self, seen: Callable[[Key], Seen | None], slots: Callable[[Key], int]) -> None:
        self._seen = seen
        self._slots = slots
        self._states: dict[Key, _State] = {}
        self._running: Running = {}

    def take(
        self, tenant: str, limits: Sequence[BoundLimit], need: Need, replicas: int, now_s: float
    ) -> Hold | Shortage:
        """Take from every limit, or from none and say which is short; one in shadow mode never is.

        ``now_s`` is Unix seconds; ``replicas`` >= 1.
        """
        taken: list[tuple[_State, LimitUnit, int, float]] = []
        for place, bound in enumerate(limits):
            limit = bound.limit
            key = (tenant, bound.id)
            if limit.unit == "concurrency":
                if limit.mode == "enforce" and self._slots(key) >= max(limit.amount // replicas, 1):
                    return Shortage(place, CONCURRENCY_RETRY_S)
                continue
            state = self._state(key, limit, replicas, now_s)
            amount = (need.worst if is_budget(limit) else need.expected).get(limit.unit, 0)
            wait_s = _wait_s(state, amount, now_s)
            if wait_s > 0 and limit.mode == "enforce":
                return Shortage(place, wait_s)
            taken.append((state, limit.unit, amount, state.window_end_s))
        return Hold(taken, self._running)

    def _state(self, key: Key, limit: Limit, replicas: int, now_s: float) -> _State:
        seen = self._seen(key)
        state = self._states.get(key)
        if state is None or (seen is not None and seen.at_s > state.since_s):
            state = self._begin(key, limit, seen, replicas, now_s)
        _refill(state, limit, replicas, now_s)
        return state

    def _begin(self, key: Key, limit: Limit, seen: Seen | None, replicas: int, now_s: float) -> _State:
        self._states.pop(key, None)
        if len(self._states) >= STATES_MAX:
            del self._states[next(iter(self._states))]
        state = self._states[key] = _State(key, now_s)
        _refill(state, limit, replicas, now_s)
        state.left = state.capacity
        if seen is not None:
            start_s = window_of(limit.per or "", now_s)[0] if is_budget(limit) else 0.0
            if seen.at_s >= start_s:
                refilled = seen.left / replicas + (now_s - seen.at_s) * state.rate
                state.left = min(refilled, state.capacity)
        state.left -= self._running.get((key, state.window_end_s), 0)  # nobody else has been told of these yet
        return state


def _refill(state: _State, limit: Limit, replicas: int, now_s: float) -> None:
    """Bring a state up to date, also with an amount that has changed: what was used stays used."""
    capacity = (limit.burst or limit.amount) / replicas
    if is_budget(limit):
        if now_s >= state.window_end_s:
            state.window_end_s = window_of(limit.per or "", now_s)[1]
            state.left, state.capacity = capacity, capacity
        state.left += capacity - state.capacity
    else:
        state.rate = limit.amount / replicas / RATE_PERIODS_S[limit.per or "second"]
        elapsed_s = now_s - state.at_s if state.at_s else 0.0
        state.left = min(state.left + max(elapsed_s, 0.0) * state.rate, capacity)
        state.at_s = now_s
    state.capacity = capacity


def _wait_s(state: _State, amount: int, now_s: float) -> float:
    """How long until the state has room for ``amount``; 0 where it has."""
    if state.window_end_s:
        return 0.0 if amount <= state.left else max(state.window_end_s - now_s, 0.001)
    wanted = min(amount, state.capacity)
    return max(wanted - state.left, 0.0) / state.rate
