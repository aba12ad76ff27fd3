"""The limit scripts against a model of them that knows no Redis: any interleaving of admissions, settlements, voids,
renewals, resets, lost data and moves of the clock leaves the same levels, the same refusals and the same ledger.

What the scripts learn is taken as they say it; only its bounds are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gateway.limits.wire import AdmitReply, BoundLimit, Held
from gateway.model import Usage
from gateway.redis.ledger_format import UsageCounts, decode_day
from tests.support.limit_model import (
    DAY_MS,
    PERIODS_MS,
    Asked,
    Bucket,
    Lease,
    Model,
    Window,
    amount,
    cost,
    counts_output,
    is_budget,
    month_end_ms,
    period,
    room,
    tokens_of,
)
from tests.support.limit_server import NOON_MS, LimitServer, limit, limit_server

SLOT_MS = 30_000
SHADOW: dict[str, Any] = {"mode": "shadow"}

LIMITS = (
    limit("rpm", "requests", 70, "minute", burst=5),
    limit("tps", "tokens", 13, "second", burst=60),
    limit("tpm", "tokens", 301, "minute"),
    limit("iph", "inputTokens", 7009, "hour", burst=100),
    limit("opm", "outputTokens", 97, "minute", **SHADOW),
    limit("two", "concurrency", 2),
    limit("shadow-one", "concurrency", 1, **SHADOW),
    limit("rpd", "requests", 9, "day"),
    limit("tpd", "tokens", 300, "day"),
    limit("opd", "outputTokens", 133, "day"),
    limit("ipm", "inputTokens", 500, "month"),
    limit("usd", "cost", 401, "month"),
    limit("shadow-usd", "cost", 300, "day", **SHADOW),
)
RARELY = st.sampled_from((False, False, False, False, True))
SOMETIMES = st.sampled_from((False, False, True))


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    """One server for all examples; each begins with it empty."""
    with limit_server() as started:
        yield started


class LimitMachine(RuleBasedStateMachine):
    """Does to the server what it does to the model, and compares."""

    server: LimitServer

    def __init__(self) -> None:
        super().__init__()
        self.server.client.flushall()
        self.model = Model()
        self.unreserved: dict[tuple[str, int], int] = {}
        self.limits: tuple[BoundLimit, ...] = ()
        self.asked: dict[str, tuple[BoundLimit, ...]] = {}  # what each lease asked for, also when refused

    @initialize(
        minutes=st.sampled_from((0, 719, 8 * 1440 + 719)),
        limits=st.lists(st.sampled_from(LIMITS), unique_by=lambda bound: bound.id, min_size=1, max_size=4),
    )
    def begin(self, minutes: int, limits: list[BoundLimit]) -> None:
        """At noon, shortly before midnight, or before the end of the month; with some limits."""
        self.server.set_time(NOON_MS + minutes * 60_000)
        self.limits = tuple(limits)

    def lease(self, number: int) -> str:
        """One of the last few leases, most likely one that runs; or one that never was."""
        running = [lease for lease, record in self.model.leases.items() if isinstance(record, Lease)]
        if running and number < 6:
            return running[number % len(running)]
        known = list(self.asked)[-6:]
        return known[number % len(known)] if known and number < 9 else f"unknown-{number}"

    @property
    def now(self) -> int:
        """The server's clock."""
        return self.server.now_ms

    @rule(
        again=RARELY,
        left_out=st.integers(0, 4),
        size=st.tuples(st.integers(1, 40), st.integers(1, 80)),
        output=st.integers(1, 30),
        capped=st.booleans(),
        choices=st.sampled_from((1, 1, 1, 3)),
    )
    def admit(self, again: bool, left_out: int, size: tuple[int, int], output: int, capped: bool, choices: int) -> None:
        """Any call, under most of the limits; sometimes with an id that was used before."""
        limits = [bound for place, bound in enumerate(self.limits) if place != left_out] or list(self.limits)
        lease = self.lease(left_out * 2) if again else f"lease-{len(self.asked)}"
        self.asked.setdefault(lease, tuple(limits))
        input_upper, text_bytes = size
        reply = self.server.admit(
            lease,
            limits,
            input_upper=input_upper,
            text_bytes=text_bytes,
            output_cap=output if capped else None,
            worst_output=output,
            choices=choices,
        )
        asked = Asked(input_upper=input_upper, output=output, choices=choices)
        waits, lowered = self._budget_waits(limits, asked)
        asked = Asked(input_upper=input_upper, output=lowered, choices=choices)
        assert 1 <= reply.input_estimate <= input_upper
        assert 0 <= reply.output_estimate <= lowered * choices
        skipped = self._rate_waits(limits, reply, waits)
        if waits:
            assert not reply.admitted
            assert reply.refused is not None
            assert reply.retry_after_ms == max(waits.values()) == waits[reply.refused.id]
        elif lease in self.model.leases:
            assert (reply.admitted, reply.refused) == (False, None)
        else:
            assert reply.admitted
            bounds = any(is_budget(b) and b.limit.mode == "enforce" and counts_output(b) for b in limits)
            assert reply.output_limit == (lowered if bounds and (not capped or lowered < output) else None)
            self._take(lease, tuple(limits), asked, reply, skipped)

    def _budget_waits(self, limits: list[BoundLimit], asked: Asked) -> tuple[dict[str, int], int]:
        waits, output = {}, asked.output
        for bound in filter(is_budget, limits):
            if bound.limit.mode == "shadow":
                continue
            left = bound.limit.amount - self.model.window(bound, self.now).used
            found = room(bound, left, asked)
            if found < 1:
                end = (self.now // DAY_MS + 1) * DAY_MS if bound.limit.per == "day" else month_end_ms(self.now)
                waits[bound.id] = end - self.now
            else:
                output = min(output, found)
        return waits, output

    def _rate_waits(self, limits: list[BoundLimit], reply: AdmitReply, waits: dict[str, int]) -> set[str]:
        """Add the waits of rates and slots; the ids of shadow rates that take nothing."""
        skipped = set()
        for bound in limits:
            wait = None
            if bound.limit.per in PERIODS_MS:
                bucket = self.model.bucket(bound, self.now)
                take = amount(bound, reply.input_estimate, reply.output_estimate)
                missing = bucket.used if take > bound.capacity else bucket.used + take - bound.capacity
                if missing > 0:
                    wait = bucket.wait(missing, self.now)
            elif bound.limit.unit == "concurrency":
                if len(self.model.slots.get(bound.id, {})) >= bound.limit.amount:
                    self.model.purge(bound, self.now)
                if len(self.model.slots.get(bound.id, {})) >= bound.limit.amount:
                    wait = 1000
            if wait is not None and bound.limit.mode == "enforce":
                waits[bound.id] = wait
            elif wait is not None and bound.limit.per in PERIODS_MS:
                skipped.add(bound.id)
        return skipped

    def _take(
        self, lease: str, limits: tuple[BoundLimit, ...], asked: Asked, reply: AdmitReply, skipped: set[str]
    ) -> None:
        takes: list[int | None] = []
        windows: list[Window | None] = []
        for bound in limits:
            take: int | None = amount(bound, asked.input_upper, asked.output * asked.choices)
            window = None
            if bound.limit.unit == "concurrency":
                self.model.slots.setdefault(bound.id, {})[lease] = self.now + SLOT_MS
            elif is_budget(bound):
                window = self.model.window(bound, self.now)
                window.used += take or 0
            elif bound.id in skipped:
                take = None
            else:
                take = amount(bound, reply.input_estimate, reply.output_estimate)
                self.model.take(bound, take, self.now)
            takes.append(take)
            windows.append(window)
        self.model.leases[lease] = Lease(
            limits=limits,
            takes=tuple(takes),
            windows=tuple(windows),
            epoch=self.model.epoch,
            admitted_ms=self.now,
        )

    @rule(
        number=st.integers(0, 10),
        used=st.tuples(st.integers(0, 60), st.integers(0, 50)),
        failed=RARELY,
        keep=RARELY,
        since_ms=st.sampled_from((0, 0, 45_000)),
        text_bytes=st.sampled_from((0, 100)),
    )
    def settle(
        self, number: int, used: tuple[int, int], failed: bool, keep: bool, since_ms: int, text_bytes: int
    ) -> None:
        """The end of a call that was admitted, or not, or has ended before."""
        lease = self.lease(number)
        usage = None if failed else Usage(input_tokens=used[0], output_tokens=used[1])
        record = self.model.leases.get(lease)
        limits = record.limits if isinstance(record, Lease) else self.limits
        admitted_ms = record.admitted_ms if isinstance(record, Lease) else self.now - since_ms
        reply = self.server.settle(
            lease,
            limits,
            usage,
            keep=keep,
            admitted_ms=admitted_ms,
            cost_nano=cost(*tokens_of(usage)),
            text_bytes=text_bytes,
        )
        if record == "settled":
            assert reply.outcomes == ("repeated",)
            return
        tokens = tokens_of(usage)
        self.model.ledger += UsageCounts(
            requests=1, input_tokens=tokens[0], output_tokens=tokens[1], cost_nano_usd=cost(*tokens)
        )
        if isinstance(record, Lease) and record.epoch == self.model.epoch:
            assert reply.outcomes == ("settled",)
            if not keep:
                self._correct(record, tokens)
        else:
            assert reply.outcomes == ("charged",)
            self._charge(limits, tokens, admitted_ms)
        self._end(lease, "settled")

    def _correct(self, record: Lease, tokens: tuple[int, int] | None) -> None:
        """Put ``tokens`` in place of what was taken; None: the call never was."""
        for bound, take, window in zip(record.limits, record.takes, record.windows, strict=True):
            if take is None or bound.limit.unit == "concurrency":
                continue
            difference = (amount(bound, *tokens) if tokens is not None else 0) - take
            if window is not None:
                window.used = max(0, window.used + difference)
                self._note(bound, record.admitted_ms, difference)
            else:
                self.model.take(bound, difference, self.now)

    def _charge(self, limits: tuple[BoundLimit, ...], tokens: tuple[int, int], admitted_ms: int) -> None:
        """Charge a use that nothing was reserved for."""
        for bound in limits:
            due = amount(bound, *tokens)
            if is_budget(bound):
                self.model.window(bound, admitted_ms).used += due
                self._note(bound, admitted_ms, due)
            elif bound.limit.per in PERIODS_MS:
                elapsed = max(0, self.now - admitted_ms)
                refilled = elapsed * bound.limit.amount // PERIODS_MS[bound.limit.per]
                self.model.take(bound, max(0, due - refilled), self.now)

    def _note(self, bound: BoundLimit, at_ms: int, excess: int) -> None:
        place = (bound.id, period(bound, at_ms))
        self.unreserved[place] = self.unreserved.get(place, 0) + max(0, excess)

    def _end(self, lease: str, how: str) -> None:
        self.model.leases[lease] = how
        for held in self.model.slots.values():
            held.pop(lease, None)

    @rule(number=st.integers(0, 10), really=SOMETIMES)
    def void(self, number: int, really: bool) -> None:
        """Of an admission that came, did not come, or has ended."""
        if not really:
            return
        lease = self.lease(number)
        record = self.model.leases.get(lease)
        outcome = self.server.void(lease, record.limits if isinstance(record, Lease) else self.limits)
        if isinstance(record, Lease):
            assert outcome == "voided"
            if record.epoch == self.model.epoch:
                self._correct(record, None)
            self._end(lease, "voided")
        elif record == "settled":
            assert outcome == "ended"
        else:
            assert outcome == "blocked"
            self.model.leases[lease] = "voided"

    @rule(numbers=st.lists(st.integers(0, 10), unique=True, min_size=1, max_size=3))
    def renew(self, numbers: list[int]) -> None:
        """The slots of running calls, some of which may have ended."""
        held, ended = [], []
        for lease in dict.fromkeys(map(self.lease, numbers)):
            slots = tuple(bound for bound in self.asked.get(lease, ()) if bound.limit.unit == "concurrency")
            held.append(Held(lease_id=lease, limits=slots))
            if slots and self.model.leases.get(lease) in ("settled", "voided"):
                ended.append(lease)
                continue
            for bound in slots:
                self.model.slots.setdefault(bound.id, {})[lease] = self.now + SLOT_MS
        assert self.server.renew(*held).ended == tuple(ended)
        for bound in {bound.id: bound for call in held for bound in call.limits}.values():
            self.model.purge(bound, self.now)

    @rule(place=st.integers(0, 3), really=RARELY)
    def reset(self, place: int, really: bool) -> None:
        """An operator forgives what was used."""
        if not really:
            return
        bound = self.limits[place % len(self.limits)]
        self.server.reset([bound])
        self.model.slots.pop(bound.id, None)
        if bound.id in self.model.buckets:
            self.model.buckets[bound.id] = Bucket(bound, self.now)
        if is_budget(bound):
            self.model.budgets[bound.id, period(bound, self.now)] = Window()

    @rule(ms=st.sampled_from((1, 77, 999, 999, 2_000, 5_000, 31_000, 60_000, 3_600_000, DAY_MS)))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.server.advance(ms)

    @rule(ms=st.sampled_from((1, 900, 20_000)))
    def clock_back(self, ms: int) -> None:
        """The clock of another server is behind."""
        self.server.advance(-ms)

    @rule(everything=st.booleans(), really=RARELY)
    def lose(self, everything: bool, really: bool) -> None:
        """A restart without data, or an eviction of the levels."""
        if not really:
            return
        if everything:
            self.server.lose_everything()
            self.model.forget()
        else:
            self.server.client.delete("lgw:1:{acme}:levels")
            self.model.forget_levels()
        self.unreserved.clear()

    @invariant()
    def levels_agree(self) -> None:
        """The server's levels are the model's."""
        said = dict(zip((bound.id for bound in self.limits), self.server.used(*self.limits), strict=True))
        assert said == {bound.id: self.model.used(bound, self.now) for bound in self.limits}

    @invariant()
    def budgets_hold(self) -> None:
        """No budget is exceeded by more than was used without or beyond a reservation."""
        for bound in self.limits:
            if is_budget(bound) and bound.limit.mode == "enforce":
                excess = self.unreserved.get((bound.id, period(bound, self.now)), 0)
                assert self.model.window(bound, self.now).used <= bound.limit.amount + excess

    @invariant()
    def ledger_agrees(self) -> None:
        """Every settled call is in the ledger once."""
        total = UsageCounts()
        for key in self.server.client.keys("lgw:1:{acme}:usage:*"):
            for counts in decode_day(self.server.client.hgetall(key)).values():
                total += counts
        assert total == self.model.ledger


def test_the_scripts_keep_the_books_as_the_model_does(server: LimitServer) -> None:
    """Any interleaving of what may happen to calls and to the server ends in the levels of the model."""

    class Machine(LimitMachine):
        pass

    Machine.server = server
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
