"""Access tokens: kept, renewed ahead of their end, asked for by one task, made anew once where they are refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import AttemptFailed
from gateway.upstream.tokens import (
    END_MARGIN_S,
    REFUSED_AGAIN_S,
    RETRY_S,
    KeptToken,
    KeptTokens,
    Token,
    TokenUnavailable,
)

LIFETIME_S = 1000.0
RENEW_S = 300.0


class Endpoint:
    """Gives numbered tokens; fails where ``fails`` says so, waits while ``gate`` is closed. Its clock is by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.token = KeptToken("account a", self.fetch, RENEW_S, lambda: self.now)

    async def fetch(self) -> Token:
        """As the endpoint would answer."""
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return Token(line=b"authorization: Bearer secret-%d\r\n" % number, lifetime_s=LIFETIME_S)

    async def number(self) -> int:
        """Which token a request gets."""
        return int((await self.token.lines("/x", b"")).strip().rpartition(b"-")[2])

    async def settle(self) -> None:
        """Until nothing is asked for."""
        if self.token._task is not None:
            await asyncio.wait((self.token._task,))


def run(test: Callable[[Endpoint], Awaitable[None]]) -> None:
    """The test in an event loop of its own."""

    async def main() -> None:
        await test(Endpoint())

    asyncio.run(main())


def test_a_token_is_asked_for_once_by_all_who_need_it() -> None:
    """Those who leave do not end it for the others."""

    async def test(endpoint: Endpoint) -> None:
        endpoint.gate.clear()
        calls = [asyncio.create_task(endpoint.number()) for _ in range(10)]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.sleep(0)
        endpoint.gate.set()
        assert await asyncio.gather(*calls[1:]) == [1] * 9
        assert await endpoint.number() == 1
        assert endpoint.asked == 1

    run(test)


def test_a_token_is_renewed_ahead_of_its_end_and_nobody_waits() -> None:
    """The old one is used meanwhile."""

    async def test(endpoint: Endpoint) -> None:
        await endpoint.number()
        endpoint.now = LIFETIME_S - RENEW_S - 1
        assert (await endpoint.number(), endpoint.asked) == (1, 1)
        endpoint.now = LIFETIME_S - RENEW_S
        endpoint.gate.clear()
        assert [await endpoint.number() for _ in range(3)] == [1, 1, 1]
        await asyncio.sleep(0)
        assert endpoint.asked == 2
        endpoint.gate.set()
        await endpoint.settle()
        assert (await endpoint.number(), endpoint.asked) == (2, 2)

    run(test)


def test_a_failure_does_not_fail_calls_while_the_old_token_is_good(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again after a moment; both turns are in the log, once each, and no token is."""

    async def test(endpoint: Endpoint) -> None:
        await endpoint.number()
        endpoint.fails = TokenUnavailable("it answered 503")
        endpoint.now = LIFETIME_S - RENEW_S
        for _ in range(3):
            assert await endpoint.number() == 1
            await endpoint.settle()
        assert endpoint.asked == 2
        endpoint.now += RETRY_S
        assert await endpoint.number() == 1
        await endpoint.settle()
        assert endpoint.asked == 3
        endpoint.now = LIFETIME_S - END_MARGIN_S
        with pytest.raises(AttemptFailed, match="no token for account a: it answered 503") as caught:
            await endpoint.number()
        assert caught.value.outcome == "unauthorized"
        endpoint.fails = None
        endpoint.now += RETRY_S
        assert await endpoint.number() == 5

    with caplog.at_level(logging.WARNING):
        run(test)
    assert [record.getMessage() for record in caplog.records] == [
        "no token for account a: it answered 503; the last one stays in use",
        "tokens for account a are given again",
    ]


def test_without_any_token_calls_fail_at_once_until_it_is_asked_for_again() -> None:
    """An endpoint that is down is not asked by each of them."""

    async def test(endpoint: Endpoint) -> None:
        endpoint.fails = TokenUnavailable("it took too long")
        for _ in range(5):
            with pytest.raises(AttemptFailed):
                await endpoint.number()
        assert endpoint.asked == 1
        endpoint.now += RETRY_S
        endpoint.fails = None
        assert await endpoint.number() == 2

    run(test)


def test_a_token_that_is_refused_is_made_anew_once() -> None:
    """Of many calls that had the same one, and not again and again where the account has no rights."""

    async def test(endpoint: Endpoint) -> None:
        first = await endpoint.token.lines("/x", b"")
        assert endpoint.token.refused(first)
        assert await endpoint.number() == 2
        assert endpoint.token.refused(first), "there is a newer one by now"
        second = await endpoint.token.lines("/x", b"")
        assert not endpoint.token.refused(second)
        assert (await endpoint.number(), endpoint.asked) == (2, 2)
        endpoint.now += REFUSED_AGAIN_S
        assert endpoint.token.refused(second)
        assert await endpoint.number() == 3

    run(test)


def test_a_token_that_is_refused_stays_where_there_is_no_other() -> None:
    """It is better than none; calls do not wait for what has just failed."""

    async def test(endpoint: Endpoint) -> None:
        first = await endpoint.token.lines("/x", b"")
        endpoint.fails = TokenUnavailable("it answered 500")
        assert endpoint.token.refused(first)
        assert await endpoint.number() == 1
        assert not endpoint.token.refused(first)
        assert (await endpoint.number(), endpoint.asked) == (1, 2)
        endpoint.fails = None
        endpoint.now += RETRY_S
        assert await endpoint.number() == 3

    run(test)


def test_an_error_of_our_own_is_logged_and_fails_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """The next call tries again."""

    async def test(endpoint: Endpoint) -> None:
        endpoint.fails = ValueError("odd")
        with pytest.raises(AttemptFailed):
            await endpoint.number()
        endpoint.fails = None
        endpoint.now += RETRY_S
        assert await endpoint.number() == 2

    run(test)
    assert "ValueError" in caplog.text


def test_the_end_waits_for_nothing() -> None:
    """What is being asked for is given up."""

    async def test(endpoint: Endpoint) -> None:
        endpoint.gate.clear()
        call = asyncio.create_task(endpoint.number())
        await asyncio.sleep(0)
        await endpoint.token.close()
        with pytest.raises(AttemptFailed):
            await call

    run(test)


def test_the_same_credential_has_one_token_while_somebody_signs_with_it() -> None:
    """And it is forgotten with the last one."""
    endpoint_of = {name: KeptToken(name, lambda: asyncio.sleep(0, Token(line=b"", lifetime_s=1)), 1) for name in "ab"}
    kept: KeptTokens[str] = KeptTokens(endpoint_of.pop)
    first = kept.of("a")
    assert kept.of("a") is first
    assert kept.of("b") is not first
    del first
    with pytest.raises(KeyError):
        kept.of("a")


def test_a_token_shows_nothing_of_itself() -> None:
    """Its repr ends in logs."""
    assert "secret" not in repr(Token(line=b"authorization: Bearer secret\r\n", lifetime_s=5))
