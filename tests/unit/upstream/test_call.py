"""The call: how each failure of the plan is told, and that every place and source is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gateway.cleanup import Cleanup
from gateway.errors import AttemptFailed, GatewayError, NoBackend, Outcome
from gateway.model import Backend, ChatRequest, Origin, Plan
from gateway.telemetry import Metrics, RequestRecord
from gateway.upstream import UpstreamLimits
from gateway.upstream.call import Answer, Caller
from gateway.upstream.signing import SignerOf, no_signer
from gateway.upstream.source import Takeable

REQUEST = ChatRequest(model="m", fields={"messages": b"[]"})
STREAM = ChatRequest(model="m", fields={"messages": b"[]"}, stream=True)
GOOD = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


class FakeSource(Takeable):
    """An answer with a status, headers and pieces; ``failure`` comes after the pieces."""

    def __init__(
        self,
        status: int = 200,
        *pieces: bytes,
        headers: Sequence[tuple[bytes, bytes]] = (),
        failure: AttemptFailed | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.delimited = True
        self.closed = self.begun_calls = 0
        self._pieces = list(pieces)
        self._failure = failure

    def take(self) -> bytes | None:
        """The next piece."""
        if self._pieces:
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        return b""

    def arrival(self) -> Awaitable[None]:
        """Never needed: a piece is always there."""
        raise AssertionError

    def whole(self) -> bytes | None:
        """It never comes at once."""
        return None

    def begun(self) -> None:
        """Counted."""
        self.begun_calls += 1

    def close(self) -> None:
        """Counted."""
        self.closed += 1


class FakeClient:
    """Gives the next of its answers to each exchange; a failure is raised, None waits for ever."""

    def __init__(self, *answers: FakeSource | AttemptFailed | None) -> None:
        self.answers = list(answers)
        self.sources = [each for each in answers if isinstance(each, FakeSource)]
        self.sent: list[tuple[bytes, bytes]] = []

    async def exchange(self, _origin: object, parts: tuple[bytes, bytes], *_: object) -> FakeSource:
        """As the client's."""
        self.sent.append(parts)
        answer = self.answers.pop(0)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, AttemptFailed):
            raise answer
        assert answer is not None
        return answer


class Calls:
    """One caller with what it counts."""

    def __init__(self, client: FakeClient, signer_of: SignerOf = no_signer) -> None:
        self.client = client
        self.metrics = Metrics(version="test")
        limits = UpstreamLimits(max_body_bytes=100, max_error_body_bytes=10)
        self.caller = Caller(client, limits, self.metrics, signer_of)  # type: ignore[arg-type]
        self.record = RequestRecord(attempts=[])
        self.cleanup = Cleanup()

    async def call(self, *backends: Backend, request: ChatRequest = REQUEST) -> Answer:
        """Try these."""
        return await self.caller.call(Plan(attempts=backends), request, self.record, self.cleanup)

    def outcomes(self) -> list[str]:
        """Of the attempts, in order."""
        return [attempt[1] for attempt in self.record.attempts]

    def in_flight(self, *backends: Backend) -> list[int]:
        """Places taken."""
        return [self.caller.backends.state_of(each).in_flight for each in backends]


def backend(name: str = "a", bound: int | None = None) -> Backend:
    """A backend over HTTP."""
    origin = Origin(scheme="http", host="h", port=80)
    return Backend(name=name, provider="openai", origin=origin, max_concurrent_requests=bound)


A, B = backend("a"), backend("b")


def refused(client: FakeClient, *backends: Backend, request: ChatRequest = REQUEST) -> tuple[GatewayError, Calls]:
    """The error that a call must end in; everything taken must have been given back."""
    calls = Calls(client)
    with pytest.raises(GatewayError) as caught:
        asyncio.run(calls.call(*backends, request=request))
    assert all(source.closed == 1 for source in client.sources)
    assert calls.in_flight(*backends) == [0] * len(backends)
    return caught.value, calls


@pytest.mark.parametrize(
    ("failures", "status", "retry_after_s"),
    [
        ([AttemptFailed("connect_error", "x")], 502, None),
        ([AttemptFailed("connect_timeout", "x")], 504, None),
        ([AttemptFailed("reset", "x"), AttemptFailed("first_byte_timeout", "x")], 504, None),
        ([AttemptFailed("first_byte_timeout", "x"), AttemptFailed("reset", "x")], 502, None),
        ([AttemptFailed("busy", "x"), AttemptFailed("busy", "x")], 503, 1.0),
        ([AttemptFailed("reset", "x"), AttemptFailed("busy", "x")], 502, None),
        ([AttemptFailed("server_error", "x", status=500), AttemptFailed("busy", "x")], 502, None),
        ([AttemptFailed("rate_limited", "x", status=429, retry_after_s=9.0)], 503, 9.0),
        (
            [
                AttemptFailed("rate_limited", "x", status=429, retry_after_s=9.0),
                AttemptFailed("server_error", "x", status=503, retry_after_s=4.0),
            ],
            503,
            4.0,
        ),
        ([AttemptFailed("rate_limited", "x", status=429, retry_after_s=9.0), AttemptFailed("reset", "x")], 502, 9.0),
        ([AttemptFailed("rate_limited", "x", status=429)], 503, 1.0),
    ],
)
def test_what_the_caller_is_told(failures: list[AttemptFailed], status: int, retry_after_s: float | None) -> None:
    """The last real failure decides the status; the soonest time to come back is passed on."""
    error, calls = refused(FakeClient(*failures), *[A, B][: len(failures)])
    assert (error.status, error.retry_after_s) == (status, retry_after_s)
    assert calls.outcomes() == [each.outcome for each in failures]


def test_an_empty_plan() -> None:
    """Nothing to try: the reasons are the operator's."""
    calls = Calls(FakeClient())
    plan = Plan(attempts=(), dropped=(("a", "disabled"),))
    with pytest.raises(NoBackend) as caught:
        asyncio.run(calls.caller.call(plan, REQUEST, calls.record, calls.cleanup))
    assert caught.value.detail == "a: disabled"
    assert "disabled" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        (429, "rate_limited", 503),
        (500, "server_error", 502),
        (503, "server_error", 503),
        (408, "server_error", 502),
        (401, "unauthorized", 502),
        (404, "misconfigured", 502),
        (302, "misconfigured", 502),
        (201, "protocol_error", 502),
    ],
)
def test_statuses(status: int, outcome: Outcome, told: int) -> None:
    """What a backend's status means, and what the caller is told of it."""
    error, calls = refused(FakeClient(FakeSource(status, b"secret")), A)
    assert (error.status, calls.outcomes()) == (told, [outcome])
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"7", 7.0),
        (b" 7 ", 7.0),
        (b"1.5", 1.0),
        (b"0", 0.0),
        (b"999999999", 86_400.0),
        (b"9" * 500, 86_400.0),
        (b"-5", 1.0),
        (b"", 1.0),
        (b"soon", 1.0),
        (b"\xb2", 1.0),
        (b"Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        (b"Mon, 99 Foo 2001 00:00:00 GMT", 1.0),
        (b"Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
        (b"Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        (b"Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0),
        (b"Mon, 01 Jan 0001 00:00:00 -0000", 0.0),
        (b"Wed, 99 Oct 99999999999999999999 07:28:00 GMT", 1.0),
        (b"Wed, 21 Oct 2015 07:28:00 +99999999999999999999", 1.0),
        (b"Wed, 21 Oct 2015 99999999999999999999:28:00 GMT", 1.0),
    ],
)
def test_retry_after(text: bytes, seconds: float) -> None:
    """Seconds or a date, within a day; what makes no sense counts as absent, which is one second."""
    error, _ = refused(FakeClient(FakeSource(429, headers=[(b"retry-after", text)])), A)
    assert error.retry_after_s == pytest.approx(seconds)


def test_retry_after_as_a_date() -> None:
    """A date to come is the time until then."""
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True).encode()
    error, _ = refused(FakeClient(FakeSource(429, headers=[(b"retry-after", text)])), A)
    assert error.retry_after_s is not None
    assert 95 < error.retry_after_s <= 100


def test_a_fallback_serves_and_the_record_names_it() -> None:
    """The first answer of the plan; what failed is in the attempts."""
    calls = Calls(FakeClient(AttemptFailed("reset", "x"), FakeSource(200, GOOD)))
    answer = asyncio.run(calls.call(A, B))
    assert (answer.body, answer.backend.name) == (GOOD, "b")
    assert (calls.record.backend, calls.outcomes()) == ("b", ["reset", "ok"])
    assert calls.in_flight(A, B) == [0, 0]
    assert calls.client.sources[0].closed == 1


def test_a_stream_is_held_until_it_is_closed() -> None:
    """Place and source belong to the reply; the first event, with comments before it, is held for it."""
    calls = Calls(FakeClient(FakeSource(200, b": wait\n\n", EVENT, EVENT)))
    answer = asyncio.run(calls.call(A, request=STREAM))
    assert answer.first == b": wait\n\n" + EVENT
    assert (calls.in_flight(A), calls.client.sources[0].closed) == ([1], 0)
    calls.cleanup.close()
    assert (calls.in_flight(A), calls.client.sources[0].closed) == ([0], 1)


@pytest.mark.parametrize("held", [b": " + b"x" * 2_000_000 + b"\n\n", b"data: " + b"x" * 2_000_000])
def test_what_is_held_before_the_first_event_is_bounded(held: bytes) -> None:
    """Neither endless comments nor an endless event fill memory."""
    pieces = [held[at : at + 65_536] for at in range(0, len(held), 65_536)]
    _, calls = refused(FakeClient(FakeSource(200, *pieces)), A, request=STREAM)
    assert calls.outcomes() == ["protocol_error"]


@pytest.mark.parametrize(
    "source",
    [
        FakeSource(200, b"{", failure=AttemptFailed("reset", "x")),
        FakeSource(200, b"x" * 101),
        FakeSource(400, b"x", failure=AttemptFailed("reset", "x")),
    ],
)
def test_after_the_first_byte_of_a_body_nothing_else_is_tried(source: FakeSource) -> None:
    """The backend did the work, and it may be paid for."""
    _, calls = refused(FakeClient(source), A, B)
    assert len(calls.outcomes()) == 1


@pytest.mark.parametrize("size", [10, 11])
def test_the_explanation_of_a_refusal_is_bounded(size: int) -> None:
    """Up to the bound it passes through; above it a text of ours takes its place, with the same status."""
    calls = Calls(FakeClient(FakeSource(422, b"x" * size, headers=[(b"content-type", b"text/plain")])))
    answer = asyncio.run(calls.call(A, B))
    assert (answer.status, calls.outcomes()) == (422, ["refused"])
    if size == 10:
        assert (answer.body, answer.content_type) == (b"x" * 10, b"text/plain")
    else:
        assert answer.body is not None
        assert b"upstream_refused" in answer.body


@pytest.mark.parametrize("request_", [REQUEST, STREAM])
@pytest.mark.parametrize("source", [None, "hanging body"])
def test_a_caller_who_leaves(request_: ChatRequest, source: str | None) -> None:
    """Cancelled anywhere, the attempt is called so and everything is given back."""

    class Hanging(FakeSource):
        async def read(self) -> bytes:
            await asyncio.Event().wait()
            return b""

    answer = None if source is None else Hanging(200)
    calls = Calls(FakeClient(answer))

    async def main() -> None:
        task = asyncio.ensure_future(calls.call(A, B, request=request_))
        await asyncio.sleep(0.01)
        assert calls.in_flight(A) == [1]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert calls.outcomes() == ["cancelled"]
    assert calls.in_flight(A, B) == [0, 0]
    if answer is not None:
        assert answer.closed == 1


def test_places_at_a_backend() -> None:
    """Bounded per backend by name, over reloads of the registry; unbounded without a bound."""
    one = backend("one", bound=1)
    calls = Calls(FakeClient(FakeSource(200, EVENT), FakeSource(200, GOOD)))

    async def main() -> None:
        await calls.call(one, request=STREAM)
        with pytest.raises(GatewayError) as caught:
            await calls.call(backend("one", bound=1))
        assert caught.value.code == "overloaded"
        await calls.call(backend("one", bound=2))

    asyncio.run(main())
    assert calls.outcomes() == ["ok", "busy", "ok"]
    calls.cleanup.close()
    assert calls.in_flight(one) == [0]


class CountingSigner:
    """Signs with a number that grows; after a refusal it may make ``more`` of them."""

    def __init__(self, more: int) -> None:
        self.more = more
        self.made = 0
        self.asked: list[tuple[str, bytes]] = []
        self.refusals: list[bytes] = []

    async def lines(self, target: str, body: bytes) -> bytes:
        """The next line."""
        self.asked.append((target, body))
        self.made += 1
        return b"x-signature: %d\r\n" % self.made

    def refused(self, lines: bytes) -> bool:
        """Noted."""
        self.refusals.append(lines)
        self.more -= 1
        return self.more >= 0


def test_a_signed_request_has_the_lines_of_its_signer() -> None:
    """Within its head, before the empty line."""
    client, signer = FakeClient(FakeSource(200, GOOD)), CountingSigner(0)
    asyncio.run(Calls(client, lambda _: signer).call(A))
    ((head, body),) = client.sent
    assert head.endswith(b"\r\nx-signature: 1\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1
    assert signer.asked == [("/chat/completions", body)]


def test_a_credential_that_is_refused_is_made_once_more() -> None:
    """The same attempt goes on with the new one; both answers are let go."""
    client, signer = FakeClient(FakeSource(401), FakeSource(200, GOOD)), CountingSigner(9)
    calls = Calls(client, lambda _: signer)
    answer = asyncio.run(calls.call(A))
    assert answer.status == 200
    assert calls.outcomes() == ["ok"]
    assert signer.refusals == [b"x-signature: 1\r\n"]
    assert b"x-signature: 2" in client.sent[1][0]
    assert [source.closed for source in client.sources] == [1, 1]


@pytest.mark.parametrize(("more", "requests"), [(0, 1), (9, 2)])
def test_a_credential_that_stays_refused_fails_the_attempt(more: int, requests: int) -> None:
    """One further try at most, and none where the signer has nothing new."""
    client, signer = FakeClient(*(FakeSource(401) for _ in range(requests))), CountingSigner(more)
    calls = Calls(client, lambda _: signer)
    with pytest.raises(GatewayError):
        asyncio.run(calls.call(A))
    assert calls.outcomes() == ["unauthorized"]
    assert len(client.sent) == requests
    assert [source.closed for source in client.sources] == [1] * requests
