"""Shared calls where no timing of real clients can hit the moment: how they are counted, told and waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.cache import Cache, CacheOptions, Flight, Head, Shared, Way
from gateway.cache.remote import Following
from gateway.cache.wire import END, begin, data
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.errors import AttemptFailed
from gateway.limits import End, Lease
from gateway.model import Backend, CachePolicy, ChatRequest, Plan, Queue, Scenario, Timeouts
from gateway.reply import Asked
from gateway.sharing import Sharing, _patience_s
from gateway.telemetry import RequestRecord
from gateway.upstream.call import Answer

WAY = Way(tenant="acme", scenario="chat", policy=CachePolicy(), digest=b"d" * 32, flight=b"f", stream=False)
TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=2.0, idle_s=3.0, total_s=10.0)
MAIN = Backend(name="main", provider="openai", origin=None, timeouts=TIMEOUTS)
LONG = b'{"choices":[{"index":0,"message":{"content":"%b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,' % (
    b"x" * 70_000
) + (b'"completion_tokens":7,"total_tokens":12}}')


class KeptLease(Lease):
    """Remembers its end."""

    def __init__(self) -> None:
        super().__init__()
        self.end: End | None = None

    def settle(self, end: End) -> bool:
        """See Lease."""
        self.end = self.end or end
        return super().settle(end)


class Counts:
    """What is counted."""

    def __init__(self) -> None:
        self.late = 0

    def charged_late(self, record: RequestRecord) -> None:
        """See Metrics."""
        self.late += 1

    def request(self, scenario: str, result: str) -> None:
        """See Counts of the cache."""

    def similarity(self, scenario: str, similarity: float) -> None:
        """See Counts of the cache."""


class Leaving(Cache):
    """A cache before whose write the one who began the call leaves."""

    def __init__(self, counts: Counts, record: RequestRecord, *, before_keep: bool) -> None:
        super().__init__(lambda: None, CacheOptions(), counts)
        self._record = record
        self._before_keep = before_keep

    def entry_bytes_max(self, way: Way) -> int:
        """Asked while the answer, which has been charged, is packed in a thread."""
        if self._before_keep:
            self._record.finished_at = 2.0
        return super().entry_bytes_max(way)


def asked(lease: Lease, record: RequestRecord, plan: Plan | None = None, **fields: Any) -> Asked:
    """A call that was admitted."""
    request = ChatRequest(model="chat", fields={"messages": b"[]"}, **fields)
    return Asked("acme", Scenario(name="chat", cache=CachePolicy()), request, plan or Plan(attempts=()), lease, record)


@pytest.mark.parametrize(("before_keep", "late"), [(True, 0), (False, 1)])
def test_a_call_is_counted_late_only_where_its_request_was_counted_without(before_keep: bool, late: int) -> None:
    """Who leaves after the charge was counted with it; who left before was not."""
    facts: ReplyFacts = read_reply(LONG)

    class Answers:
        def call(self, *_: Any) -> Any:
            async def answered() -> Answer:
                if not before_keep:
                    record.finished_at = 1.0
                return Answer(backend=MAIN, status=200, content_type=b"application/json", body=LONG, facts=facts)

            return answered()

        def conforms(self, *_: Any) -> bool:
            return True

    counts, record = Counts(), RequestRecord()

    async def main() -> None:
        cache = Leaving(counts, record, before_keep=before_keep)
        flight = cache.open(WAY)
        flight.join()
        sharing = Sharing(cache, Answers(), None, counts, 1000)  # type: ignore[arg-type]  # a stand-in for each part
        await sharing._make(asked(KeptLease(), record), Shared(WAY, flight, None, None))
        assert flight.head is not None

    asyncio.run(main())
    assert record.finished_at
    assert record.usage is not None
    assert counts.late == late


def test_the_ledger_has_the_status_that_a_follower_was_told() -> None:
    """A refusal that a backend gave one call is told to all who share it, and is no success of theirs."""
    lease = KeptLease()
    sharing = Sharing(None, None, None, None, 1000)  # type: ignore[arg-type]  # no part of it is asked
    head = Head(status=400, content_type=b"application/json", body=b"{}")
    reply = sharing._reply(asked(lease, RequestRecord()), WAY, None, head)
    assert reply.status == 400
    assert lease.end is not None
    assert (lease.end.status, lease.end.cached) == (400, True)


def test_who_follows_waits_as_long_as_the_call_may_take() -> None:
    """The wait in a backend's queue is part of it, and a second answer where one may be asked for."""

    def patience_s(*attempts: Backend, may_wait: bool = True, **fields: Any) -> float:
        plan = Plan(attempts=attempts, may_wait=may_wait)
        return _patience_s(asked(Lease(), RequestRecord(), plan, **fields))

    queued = Backend(name="cold", provider="openai", origin=None, timeouts=TIMEOUTS, queue=Queue(wait_s=60.0))
    assert patience_s(MAIN) == 10.0
    assert patience_s(MAIN, stream=True) == 3.0
    assert patience_s(MAIN, queued) == 80.0
    assert patience_s(queued, stream=True) == 63.0
    assert patience_s(queued, MAIN) == 20.0  # nobody waits for any but the last
    assert patience_s(queued, may_wait=False) == 10.0
    assert patience_s(MAIN, answers=2) == 20.0
    assert patience_s() > 0


def test_what_is_followed_is_bounded_from_its_first_bytes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the call had waited in a queue before; and it has an end from then on."""
    now = 100.0
    head = Head(status=200, content_type=b"text/event-stream")
    told = [*([[]] * 50), [begin(head), data(b"one")], [], [data(b"two"), END]]

    class Replies:
        lease_ms = 1000
        lane = scripts = None

    async def run(total_s: float) -> Flight:
        nonlocal now
        replies = iter(told)

        async def ask(_: Any, place: int) -> tuple[bool, list[bytes]]:
            nonlocal now
            now += 1.0
            return True, next(replies)

        monkeypatch.setattr(Following, "_ask", ask)
        flight = Flight(1000, lambda _: None)
        follower = flight.join()
        following = Following(Replies(), WAY, flight, b"id")  # type: ignore[arg-type]  # it is not asked
        await following.run(pause_max_s=0.0, idle_s=5.0, total_s=total_s)
        assert follower.take() is not None
        return flight

    monkeypatch.setattr("gateway.cache.remote.monotonic", lambda: now)
    assert asyncio.run(run(10.0)).failure is None
    assert isinstance(asyncio.run(run(0.5)).failure, AttemptFailed)
