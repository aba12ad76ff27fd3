"""The queue of what Redis has to be told: once each, bounded, never in front of a request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import RedisRefused, RedisUnanswered, RedisUnavailable
from gateway.limits.settlements import QueueBounds, Settlements
from gateway.limits.wire import LimitSet, ScriptOptions, SettleCall
from tests.unit.limits.fake_lane import SCRIPTS, Asked, FakeLane, ended, settled

KIND = LimitSet("acme", ())


class Queue:
    """Settlements on a fake lane."""

    def __init__(self, **bounds: Any) -> None:
        self.lane = FakeLane()
        self.epochs: list[tuple[str, str]] = []
        self.lost = 0
        self.settlements = Settlements(
            self.lane,
            (SCRIPTS, ScriptOptions()),
            QueueBounds(**bounds),
            lambda tenant, epoch: self.epochs.append((tenant, epoch)),
            self._lose,
        )

    def _lose(self, count: int) -> None:
        self.lost += count

    def settle(self, *lease_ids: str, kind: LimitSet = KIND, ended_at: float = 1_000_000.0) -> None:
        """Calls have ended, in one turn of the loop."""
        for each in lease_ids:
            self._settle(each, kind, ended_at)
        self.settlements._end_turn()

    def _settle(self, lease_id: str, kind: LimitSet, ended_at: float, **named: str) -> None:
        names: dict[str, Any] = {"key": "ci", "scenario": "chat", "backend": "main"} | named
        self.settlements.settle(
            SettleCall(
                lease_id=lease_id,
                admitted_ms=0,
                kind=kind,
                usage=None,
                cost_nano=0,
                status=200,
                ended_at=ended_at,
                **names,
            )
        )

    def sent(self) -> list[str]:
        """The ids that were sent, in order."""
        return [lease_id for each in self.lane.asked for lease_id in leases_of(each)]


def leases_of(asked: Asked) -> list[str]:
    """The leases that a command is about."""
    return [call[0] for call in asked.calls] if asked.what == "settle" else [asked.arguments[0]]


def answered(asked: Asked) -> bytes:
    """Every command is."""
    return settled() if asked.what == "settle" else ended()


def test_it_is_sent_at_once_and_the_epoch_is_told() -> None:
    """Nothing waits while Redis answers."""

    async def main() -> None:
        queue = Queue()
        queue.lane.answer = answered
        queue.settle("a")
        assert queue.sent() == ["a"]
        await asyncio.sleep(0)
        assert queue.epochs == [("acme", "e1")]
        assert queue.settlements.waiting == 0

    asyncio.run(main())


@pytest.mark.parametrize("failure", [RedisUnavailable("x"), RedisUnanswered("x"), RedisRefused("x")])
def test_what_failed_is_sent_again_until_it_is_answered(failure: Exception) -> None:
    """The same bytes, so that the server knows what it has had."""

    async def main() -> None:
        queue = Queue()
        queue.lane.answer = lambda _: failure
        queue.settle("a")
        await asyncio.sleep(0)
        assert queue.settlements.waiting == 1
        await queue.settlements.flush()
        assert queue.settlements.waiting == 1
        queue.lane.answer = answered
        await queue.settlements.flush()
        assert queue.settlements.waiting == 0
        assert queue.sent() == ["a"] * 3
        assert len({tuple(each.parts[1]) for each in queue.lane.asked}) == 1
        await queue.settlements.flush()
        assert len(queue.lane.asked) == 3

    asyncio.run(main())


def test_nothing_is_sent_while_redis_is_not_used() -> None:
    """It waits, settlements and voids alike, in order."""

    async def main() -> None:
        queue = Queue()
        queue.lane.available = False
        queue.settle("a")
        queue.settlements.void(KIND, "b")
        queue.settle("c")
        await queue.settlements.flush()
        assert queue.lane.asked == []
        queue.lane.available, queue.lane.answer = True, answered
        await queue.settlements.flush()
        assert queue.lane.names() == ["settle", "void", "settle"]
        assert queue.sent() == ["a", "b", "c"]

    asyncio.run(main())


def test_the_queue_is_bounded_and_what_is_given_up_is_counted() -> None:
    """The oldest goes first; an entry that is too old goes too."""

    async def main() -> None:
        queue = Queue(entries_max=3)
        queue.lane.available = False
        for each in "abcde":
            queue.settle(each)
        assert (queue.settlements.waiting, queue.lost) == (3, 2)
        queue.lane.available, queue.lane.answer = True, answered
        await queue.settlements.flush()
        assert queue.sent() == ["c", "d", "e"]
        aged = Queue(age_max_s=1e-9)
        aged.lane.available = False
        aged.settle("a")
        await asyncio.sleep(0.001)
        await aged.settlements.flush()
        assert (aged.settlements.waiting, aged.lost) == (0, 1)

    asyncio.run(main())


def test_a_flush_ends_at_the_first_part_that_is_not_answered() -> None:
    """Thousands that wait do not hammer a server that is in trouble."""

    async def main() -> None:
        queue = Queue()
        queue.lane.available = False
        for number in range(1000):
            queue.settle(f"a{number}")
        queue.lane.available = True
        queue.lane.answer = lambda _: RedisUnanswered("x")
        await queue.settlements.flush()
        assert len(queue.lane.asked) == 200
        assert queue.settlements.waiting == 1000
        queue.lane.answer = answered
        await queue.settlements.flush()
        assert set(queue.sent()[200:]) == {f"a{number}" for number in range(1000)}

    asyncio.run(main())


def test_the_end_waits_for_answers_for_a_bounded_time() -> None:
    """What is left then is lost, and counted."""

    async def main() -> None:
        queue = Queue()
        queue.settle("a")
        asyncio.get_running_loop().call_soon(queue.lane.asked[0].future.set_result, settled())
        await queue.settlements.close(5.0)
        assert queue.lost == 0
        away = Queue()
        away.lane.available = False
        away.settle("a")
        await away.settlements.close(0.01)
        assert away.lost == 1

    asyncio.run(main())


def test_the_end_waits_for_redis_to_be_back(caplog: pytest.LogCaptureFixture) -> None:
    """Not only for answers; what is lost after all is said, with what was sent and not answered."""

    async def main() -> None:
        queue = Queue()
        queue.lane.available = False
        queue.settle("a")
        closing = asyncio.ensure_future(queue.settlements.close(5.0))
        await asyncio.sleep(0.01)
        queue.lane.available, queue.lane.answer = True, answered
        await closing
        assert (queue.sent(), queue.lost, caplog.messages) == (["a"], 0, [])
        away = Queue()
        away.settle("a")
        away.lane.available = False
        away.settle("b")
        await away.settlements.close(0.01)
        assert away.lost == 2
        assert caplog.messages == ["the process ends and Redis could not be told how calls ended: 2"]

    asyncio.run(main())


def test_a_tenant_is_behind_while_redis_cannot_know_of_its_calls() -> None:
    """Not for what it may have had, nor for what was given up."""

    async def main() -> None:
        for failure, is_behind in ((RedisUnavailable("x"), True), (RedisUnanswered("x"), False)):
            queue = Queue(entries_max=2)
            queue.lane.answer = lambda _, failure=failure: failure
            queue.settle("a")
            await asyncio.sleep(0)
            assert ("acme" in queue.settlements.behind) == is_behind
            queue.settlements.void(LimitSet("globex", ()), "b")
            await asyncio.sleep(0)
            assert "globex" not in queue.settlements.behind
            await queue.settlements.flush()
            assert ("acme" in queue.settlements.behind) == is_behind
            for each in "cd":
                queue.settlements.void(LimitSet("globex", ()), each)
            await asyncio.sleep(0)
            assert "acme" not in queue.settlements.behind

    asyncio.run(main())


def test_an_entry_that_is_refused_does_not_keep_the_others() -> None:
    """Each is sent once in a flush."""

    async def main() -> None:
        queue = Queue()
        queue.lane.available = False
        for number in range(500):
            queue.settle(f"a{number}")
        queue.lane.available = True
        queue.lane.answer = lambda each: RedisRefused("x") if "a0" in leases_of(each) else settled()
        await queue.settlements.flush()
        assert len(queue.lane.asked) == 500
        assert queue.settlements.waiting == 1
        assert "acme" not in queue.settlements.behind

    asyncio.run(main())


def test_what_ends_in_one_turn_is_told_together() -> None:
    """Calls of one kind, in order, in bounded parts; others and those of another day for themselves."""

    async def main() -> None:
        queue = Queue()
        queue.lane.answer = answered
        other = LimitSet("globex", ())
        queue._settle("a", KIND, 1_000_000.0)
        queue._settle("x", other, 1_000_000.0)
        queue._settle("b", KIND, 1_000_000.0)
        queue._settle("c", KIND, 1_000_000.0 + 86_400)
        assert [leases_of(each) for each in queue.lane.asked] == [["a", "b"]]  # its day is over
        await asyncio.sleep(0)
        assert [leases_of(each) for each in queue.lane.asked] == [["a", "b"], ["x"], ["c"]]
        queue.lane.asked.clear()
        queue.settle(*(f"d{number}" for number in range(70)))
        assert [len(leases_of(each)) for each in queue.lane.asked] == [32, 32, 6]
        await asyncio.sleep(0)
        assert queue.settlements.waiting == 0

    asyncio.run(main())


def test_only_calls_that_the_ledger_counts_alike_are_told_together() -> None:
    """By key, scenario and backend: a run is told each of them once."""

    async def main() -> None:
        queue = Queue()
        queue.lane.answer = answered
        for lease_id, named in (
            ("a", {}),
            ("b", {"key": "cd"}),
            ("c", {"scenario": "mail"}),
            ("d", {"backend": "spare"}),
            ("e", {}),
        ):
            queue._settle(lease_id, KIND, 1_000_000.0, **named)
        queue.settlements._end_turn()
        assert [(leases_of(each), *each.arguments[4:7]) for each in queue.lane.asked] == [
            (["a", "e"], "ci", "chat", "main"),
            (["b"], "cd", "chat", "main"),
            (["c"], "ci", "mail", "main"),
            (["d"], "ci", "chat", "spare"),
        ]

    asyncio.run(main())


def test_one_call_that_is_refused_does_not_keep_those_told_with_it() -> None:
    """They are told again one by one."""

    async def main() -> None:
        queue = Queue()
        queue.lane.answer = lambda each: RedisRefused("x") if "b" in leases_of(each) else settled()
        queue.settle("a", "b", "c")
        await asyncio.sleep(0)
        assert queue.settlements.waiting == 3
        await queue.settlements.flush()
        assert [leases_of(each) for each in queue.lane.asked[1:]] == [["a"], ["b"], ["c"]]
        assert (queue.settlements.waiting, queue.lost) == (1, 0)

    asyncio.run(main())


def test_calls_told_together_count_one_by_one() -> None:
    """For the bound of the queue and for what is lost."""

    async def main() -> None:
        queue = Queue(entries_max=4)
        for each in "abcdef":
            queue._settle(each, KIND, 1_000_000.0)
        queue.lane.available = False
        queue.settlements._end_turn()
        assert (queue.settlements.waiting, queue.lost) == (4, 2)
        queue.settle("g")
        assert (queue.settlements.waiting, queue.lost) == (1, 6)
        queue.lane.available = True
        queue.settle("h", "i")
        await queue.settlements.close(0.01)
        assert queue.lost == 9

    asyncio.run(main())
