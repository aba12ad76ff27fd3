"""Admission, with a lane that does what the test says."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from gateway.errors import (
    BudgetExceeded,
    GatewayError,
    LimitsUnavailable,
    RateLimited,
    RedisRefused,
    RedisUnanswered,
    RedisUnavailable,
)
from gateway.limits import NOTHING_USED, End, Lease
from gateway.limits.limiter import need_of
from gateway.model import ChatRequest, Limit, Price, Usage
from tests.support.calls import until
from tests.unit.limits.door import REQUEST, TEN, Door, run
from tests.unit.limits.fake_lane import admission, ended, packed, settled
from tests.unit.limits.values import CHAT, a_limit, admit_call, principal


def test_a_caller_without_limits_touches_nothing() -> None:
    """Without a lane not even its end is told; with one the ledger hears of it."""

    async def main() -> None:
        free = principal()
        assert Door().limiter.bind(free, CHAT) is None
        assert type(Door(lane=False).limiter.unlimited(free, CHAT)) is Lease
        door = Door()
        lease = door.limiter.unlimited(free, CHAT)
        assert door.lane.asked == []
        assert lease.settle(End(usage=Usage(input_tokens=3, output_tokens=4), backend="main"))
        assert not lease.settle(NOTHING_USED)
        await asyncio.sleep(0)
        (told,) = door.lane.asked
        assert told.what == "settle"
        ((_, _, *used, status, _, _, _, _, _, variant),) = told.calls
        assert used == [3, 0, 4, 0, "3", "0", "4", "0"]
        assert [*told.arguments[4:7], status, variant] == ["ci", "chat", "main", "200", "base"]

    run(main())


def test_an_admitted_call_is_settled_with_what_it_used() -> None:
    """One admission, one settlement, under one id."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda asked: admission() if asked.what == "admit" else settled()
        lease = await door.admit()
        assert lease.headers()[1] == (b"x-ratelimit-remaining-requests", b"9")
        assert lease.reserved == Usage(input_tokens=20, output_tokens=30, estimated=True)
        door.limiter.shared.seen.show()
        assert door.counts.cells["requests-day"].value == 1000
        assert lease.settle(End(usage=Usage(input_tokens=1, output_tokens=2), backend="main"))
        await asyncio.sleep(0)
        admit, settle = door.lane.asked
        assert (admit.what, settle.what) == ("admit", "settle")
        assert admit.calls[0][0] == settle.calls[0][0]

    run(main())


@pytest.mark.parametrize(("limit", "kind"), [(TEN, BudgetExceeded), (a_limit("requests", "minute", 10), RateLimited)])
def test_a_refusal_says_when_and_what_is_left(limit: Limit, kind: type[GatewayError]) -> None:
    """It is counted, and nothing else is asked of Redis."""

    async def main() -> None:
        door = Door(limit)
        door.lane.answer = lambda _: admission(status=0, used=[10])
        error = await door.refused()
        assert isinstance(error, kind)
        assert error.retry_after_s == 2.5
        assert dict(error.headers)[b"x-ratelimit-remaining-requests"] == b"0"
        assert door.counts.rejected == [(limit.name, False)]
        assert door.lane.names() == ["admit"]

    run(main())


@pytest.mark.parametrize("failure", [RedisUnanswered("x"), RedisRefused("x")])
def test_an_admission_that_may_have_been_executed_is_undone(failure: Exception) -> None:
    """The call goes on under another id."""

    async def main() -> None:
        door = Door()
        answers: dict[str, Any] = {"admit": failure, "void": ended(), "settle": settled()}
        door.lane.answer = lambda asked: answers[asked.what]
        lease = await door.admit()
        assert lease.settle(NOTHING_USED)
        await asyncio.sleep(0)
        assert door.lane.names() == ["admit", "void", "settle"]
        admit, void, settle = door.lane.asked
        admit_id, void_id, settle_id = admit.calls[0][0], void.arguments[0], settle.calls[0][0]
        assert admit_id == void_id != settle_id

    run(main())


@pytest.mark.parametrize("answer", [b"\xc1", packed(1, 2), None, b""])
def test_an_answer_that_cannot_be_read_is_none(answer: Any) -> None:
    """The limits' policies decide then; a fault of ours is not the caller's."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda asked: answer if asked.what == "admit" else ended()
        lease = await door.admit()
        assert lease.headers() == ((b"x-llm-gateway-degraded", b"limits"),)
        assert door.lane.names() == ["admit", "void"]

    run(main())


def test_a_fault_that_every_call_meets_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what the server said."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda asked: RedisRefused("ERR in the script") if asked.what == "admit" else ended()
        for _ in range(5):
            assert (await door.admit()).reply is None

    run(main())
    assert [record.getMessage() for record in caplog.records].count(
        "calls are not admitted by Redis: ERR in the script"
    ) == 1


def test_an_admission_that_was_not_executed_needs_no_undoing() -> None:
    """The server never had it."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda _: RedisUnavailable("x")
        assert (await door.admit()).reply is None
        assert door.lane.names() == ["admit"]

    run(main())


def test_a_caller_that_leaves_while_it_waits_takes_nothing() -> None:
    """The admission is undone, whether its answer comes or not."""

    async def main() -> None:
        door = Door(a_limit("concurrency", None, 5))
        call = asyncio.ensure_future(door.admit())
        await asyncio.sleep(0)
        assert door.lane.names() == ["admit"]
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert door.lane.names() == ["admit", "void"]
        assert list(door.limiter.shared.slots.batches()) == []

    run(main())


def test_policies_without_redis() -> None:
    """One that closes wins; one that is open lets pass; a local one counts. Nothing is asked of Redis."""

    async def main() -> None:
        for policies, expected in [
            (("open", "open"), None),
            (("open", "local"), RateLimited),
            (("local", "closed"), LimitsUnavailable),
        ]:
            limits = [
                a_limit("requests", "minute", 1, name=f"l{place}", on_redis_loss=policy)
                for place, policy in enumerate(policies)
            ]
            door = Door(*limits)
            door.lane.available = False
            results = await asyncio.gather(*(door.admit() for _ in range(3)), return_exceptions=True)
            errors = [result for result in results if isinstance(result, GatewayError)]
            assert {type(error) for error in errors} == ({expected} if expected else set())
            assert all((b"x-llm-gateway-degraded", b"limits") in error.headers for error in errors)
            strictest = "closed" if "closed" in policies else "local" if "local" in policies else "open"
            assert door.counts.policies == [strictest] * 3
            assert door.lane.asked == []

    run(main())


def test_a_shadow_limit_never_closes() -> None:
    """It refuses nobody, with Redis or without."""

    async def main() -> None:
        door = Door(a_limit("requests", "minute", 1, "shadow", on_redis_loss="closed"))
        door.lane.available = False
        for _ in range(5):
            assert (await door.admit()).reply is None

    run(main())


def test_a_local_call_gives_back_what_it_did_not_use() -> None:
    """Places, too."""

    async def main() -> None:
        door = Door(a_limit("concurrency", None, 1), a_limit("tokens", "minute", 300))
        door.lane.available = False
        lease = await door.admit()
        assert isinstance(await door.refused(), RateLimited)
        assert lease.settle(End(usage=Usage(input_tokens=1, output_tokens=1)))
        again = await door.admit()
        assert again.settle(NOTHING_USED)
        assert door.limiter.shared.slots.count(("acme", "t:concurrency-None")) == 0

    run(main())


@pytest.mark.parametrize(("policy", "asked"), [("local", False), ("open", True)])
def test_redis_is_asked_again_once_it_knows_what_was_used_meanwhile(policy: str, asked: bool) -> None:
    """Else its levels, which know nothing of that yet, would let the same be used again."""

    async def main() -> None:
        door = Door(a_limit("requests", "day", 10, on_redis_loss=policy))
        answers: dict[str, Any] = {"admit": admission(), "settle": settled(), "TIME": [b"1000", b"0"]}
        door.lane.answer = lambda each: answers.get(each.what, 1)
        door.lane.change(available=False)
        (await door.admit()).settle(NOTHING_USED)
        door.lane.change(available=True)
        await door.admit()
        assert ("admit" in door.lane.names()) == asked
        working = asyncio.ensure_future(door.limiter.shared.run())
        await until(lambda: "acme" not in door.limiter.shared.behind)
        await door.admit()
        assert door.lane.names()[-1] == "admit"
        assert "settle" in door.lane.names()
        working.cancel()

    run(main())


def test_a_settlement_that_redis_refuses_keeps_nobody_from_it() -> None:
    """It has been told, whatever it makes of that."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda _: RedisRefused("ERR no")
        door.lane.available = False
        (await door.admit()).settle(NOTHING_USED)
        assert "acme" in door.limiter.shared.behind
        assert "globex" not in door.limiter.shared.behind
        door.lane.available = True
        working = asyncio.ensure_future(door.limiter.shared.run())
        await until(lambda: "acme" not in door.limiter.shared.behind)
        working.cancel()

    run(main())


def test_a_budget_without_redis_still_bounds_the_output() -> None:
    """What was reserved is what a backend may make."""

    async def main() -> None:
        door = Door(a_limit("tokens", "day", 10_000), lane=False)
        lease = await door.admit()
        assert lease.output_limit == 50
        capped = ChatRequest(model="chat", fields=REQUEST.fields, max_output_tokens=7)
        assert (await door.admit(request=capped)).output_limit == 7

    run(main())


def test_another_epoch_restores_what_was_seen() -> None:
    """Before anything else is asked, and only what was seen before."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda _: admission(used=[7])
        assert (await door.admit()).reply is not None
        door.lane.answer = lambda asked: (
            admission(epoch="e2", now_ms=5_000_000) if asked.what == "admit" else packed("e2", 1, [0], [3], [0], [7])
        )
        assert (await door.admit()).reply is not None
        await asyncio.sleep(0)
        assert door.lane.names() == ["admit", "admit", "levels"]
        action, used, _, seen_ms, _ = door.lane.asked[-1].arguments
        assert (action, used, seen_ms) == (2, [7], 1_000_000)
        assert (await door.admit()).reply is not None
        await asyncio.sleep(0)
        assert door.lane.names() == ["admit", "admit", "levels", "admit"]
        await door.limiter.shared.close()

    run(main())


def test_what_a_server_may_have_lost_is_restored_before_the_next_admission() -> None:
    """Once, and so are the places that calls hold. A restore without an answer is sent again before the one after."""

    async def main() -> None:
        door = Door(TEN, a_limit("concurrency", None, 5))
        answers: dict[str, Any] = {
            "admit": admission(used=(7, 1)),
            "renew": packed("e1", 1, [], 0),
            "levels": RedisUnanswered("late"),
        }
        door.lane.answer = lambda asked: answers[asked.what]
        first = await door.admit()
        door.lane.lose()
        assert door.lane.names() == ["admit"]
        await door.admit()
        await asyncio.sleep(0)
        assert door.lane.names() == ["admit", "levels", "renew", "admit"]
        action, used, _, seen_ms, _ = door.lane.asked[1].arguments
        assert (action, used, seen_ms) == (2, [7, 1], 1_000_000)
        assert door.lane.asked[2].arguments[2][0][0] == first.call.lease_id
        answers["levels"] = packed("e1", 1, [0, 0], [3, 4], [0, 0], [7, 1])
        for _ in range(2):
            await door.admit()
            await asyncio.sleep(0)
        assert door.lane.names()[4:] == ["levels", "renew", "admit", "admit"]

    run(main())


def test_levels_that_a_server_does_not_take_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """Said, and not tried with every call."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda _: admission(used=(7,))
        await door.admit()
        door.lane.lose()
        door.lane.answer = lambda asked: admission(used=(7,)) if asked.what == "admit" else RedisRefused("ERR no")
        for _ in range(3):
            await door.admit()
            await asyncio.sleep(0)
        assert door.lane.names() == ["admit", "levels", "admit", "admit", "admit"]

    run(main())
    assert caplog.messages[1] == "the limits of tenant acme cannot be restored: ERR no"


def test_the_worst_case_of_a_call() -> None:
    """Input at its bound, output at its cap for every choice, money rounded up."""
    price = Price(input_nano_usd=1_500_000, cached_input_nano_usd=0, output_nano_usd=1)
    need = need_of(
        admit_call(text_bytes=101, input_upper=200, output_cap=400, worst_output=100, choices=3, price=price)
    )
    assert need.worst == {
        "requests": 1,
        "tokens": 500,
        "inputTokens": 200,
        "outputTokens": 300,
        "cost": 301,
    }
    assert need.expected == {"requests": 1, "tokens": 326, "inputTokens": 26, "outputTokens": 300}
    unknown = need_of(admit_call(text_bytes=100, input_upper=200, worst_output=4096))
    assert unknown.expected["outputTokens"] == 256
