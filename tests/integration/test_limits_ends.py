"""How calls end under limits: what is charged, which places are free again, whatever became of client and gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import faults
from tests.support.client import request_bytes
from tests.support.limited import PATH, Fleet, Spender, body, code, fleet, limit, statuses
from tests.support.scripts import Chat, Gate, Hang, Script, Tokens, error_reply
from tests.support.waiting import eventually

LIMITS = [limit("tokens", 100_000, "day"), limit("concurrency", 2), limit("requests", 1000, "day")]
HANG = Script((Hang(),))


@pytest.fixture
def one() -> Iterator[Fleet]:
    """One gateway with a budget of tokens, one of requests, and two places."""
    with fleet(LIMITS, maxOutputTokens=1000) as found:
        yield found


def used(several: Fleet, name: str) -> int:
    """What a limit's share of the state says was used, in 100,000 parts, as one more call is told."""
    several.upstream.behaviour = Chat(usage=Tokens(prompt=0, completion=0))
    answer = several.ask(body(max_tokens=1))
    assert answer.status == 200
    unit = name.partition("-")[0]
    limit_, left = [int(answer.header(f"x-ratelimit-{what}-{unit}") or 0) for what in ("limit", "remaining")]
    return round((1 - left / limit_) * 100_000)


def places(several: Fleet) -> int:
    """How many places are taken in Redis."""
    return int(several.command("ZCARD", "lgw:1:{acme}:slots:t:concurrency").strip(":\r\n"))


def test_reported_usage_replaces_the_reservation(one: Fleet) -> None:
    """A thousand tokens were reserved, thirteen were used."""
    one.upstream.behaviour = Chat(usage=Tokens(prompt=10, completion=3))
    assert one.ask().status == 200
    eventually(lambda: one.usage() == {"requests": 1, "input": 10, "output": 3, "cost": 16_000_000})
    assert used(one, "tokens-per-day") < 500
    eventually(lambda: places(one) == 0)


def test_a_plain_call_whose_client_left_while_the_backend_worked(one: Fleet) -> None:
    """Nobody knows what the backend made: its reservation stays charged and the ledger says so, estimated."""
    one.upstream.behaviour = HANG
    with one.gateways[0].client() as client:
        client.send(request_bytes(PATH, body(), key=one.key))
        one.upstream.wait_for_requests()
        assert places(one) == 1
    eventually(lambda: places(one) == 0)
    eventually(lambda: one.usage()["requests"] == 1)
    assert one.usage()["estimated"] == 1
    assert one.usage()["output"] > 0
    assert used(one, "tokens-per-day") > 1000
    line = one.gateways[0].wait_for_log(lambda line: line.get("status") == 499)
    assert line["tokens"]["estimated"]


def test_a_stream_whose_client_left_is_charged_what_was_streamed(one: Fleet) -> None:
    """Estimated, and far below what was reserved."""
    one.upstream.behaviour = faults.hang_mid_stream()
    with one.gateways[0].client() as client:
        client.send(request_bytes(PATH, body(stream=True), key=one.key))
        client.read_until(b"\n\n")
        assert places(one) == 1
    eventually(lambda: places(one) == 0)
    eventually(lambda: one.usage()["requests"] == 1)
    assert one.usage()["estimated"] == 1
    assert used(one, "tokens-per-day") < 500


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_not_begun_and_a_failed_backend_cost_the_request_only(one: Fleet, stream: bool) -> None:
    """Nothing came of it, so nothing is charged but that it was asked."""
    one.upstream.behaviour = error_reply(500)
    assert one.ask(body(stream=stream)).status == 502
    one.upstream.behaviour = error_reply(400)
    assert one.ask(body(stream=stream)).status == 400
    eventually(lambda: one.usage() == {"requests": 2})
    assert used(one, "tokens-per-day") < 500
    eventually(lambda: places(one) == 0)


def test_a_stream_ends_its_lease_once_with_its_last_byte(one: Fleet) -> None:
    """Its place is held until then."""
    gate = Gate()
    script = Chat(usage=Tokens(prompt=7, completion=5))
    one.upstream.behaviour = lambda request: Script((*script(request).steps[:2], gate, *script(request).steps[2:]))
    with one.gateways[0].client() as client:
        client.send(request_bytes(PATH, body(stream=True), key=one.key))
        client.read_until(b"\n\n")
        assert places(one) == 1
        assert one.usage()["requests"] == 0
        gate.open()
        client.read_until(b"[DONE]")
        eventually(lambda: one.usage() == {"requests": 1, "input": 7, "output": 5, "cost": 17_000_000})
    eventually(lambda: places(one) == 0)


def test_a_client_that_leaves_while_redis_is_asked_takes_nothing(one: Fleet) -> None:
    """The admission that it no longer waits for is undone, executed or not."""
    one.valkey.pause()
    with one.gateways[0].client() as client:
        client.send(request_bytes(PATH, body(), key=one.key))
        eventually(lambda: one.gateways[0].metrics().value("llm_gateway_inflight_requests") == 1)
    one.gateways[0].assert_nothing_in_flight()
    one.valkey.resume()
    assert used(one, "requests-per-day") == 100  # of 100,000 parts: one of a thousand requests, that of the reader
    eventually(lambda: places(one) == 0)


def test_a_killed_gateway_leaves_its_reservations_charged_and_its_places_to_expiry() -> None:
    """The others go on: the budget stays kept, and the places of the dead end within 30 seconds."""
    spender = Spender(most=100)
    with fleet([limit("tokens", 1000, "day"), limit("concurrency", 3)], size=2, maxOutputTokens=100) as both:
        both.upstream.behaviour = HANG
        dying = both.gateways[0]
        clients = [dying.client() for _ in range(2)]
        for client in clients:
            client.send(request_bytes(PATH, body(max_tokens=100), key=both.key))
        both.upstream.wait_for_requests(2)
        dying.kill()
        for client in clients:
            client.close()
        both.upstream.behaviour = spender
        answers = [both.ask(body(max_tokens=100), at=1)]
        while answers[-1].status == 200:
            answers.append(both.ask(body(max_tokens=100), at=1))
        assert statuses(answers)[200] > 0
        assert code(answers[-1]) == "budget_exceeded"
        assert spender.tokens <= 1000 - 2 * 100
        assert places(both) == 2
        until_ms = int(both.command("ZRANGE", "lgw:1:{acme}:slots:t:concurrency", "0", "-1", "WITHSCORES").split()[-1])
        now_ms = int(both.command("TIME").split()[2]) * 1000
        assert until_ms - now_ms <= 31_000


def test_a_place_outlives_its_time_with_its_call_but_not_its_gateway() -> None:
    """A long call keeps its place by renewal; that of a gateway that died is free once its time is over."""
    key = "lgw:1:{acme}:slots:t:concurrency"
    with fleet([limit("concurrency", 1)], size=2, env={"LLM_GATEWAY_LIMIT_SLOT_S": "3"}) as both:
        both.upstream.behaviour = HANG
        with both.gateways[0].client() as client:
            client.send(request_bytes(PATH, body(), key=both.key))
            both.upstream.wait_for_requests()

            def expires_ms() -> int:
                return int(both.command("ZRANGE", key, "0", "-1", "WITHSCORES").split()[-1])

            first_ms = expires_ms()
            eventually(lambda: expires_ms() > first_ms + 3000, 10, what="a place is held beyond its first time")
            both.upstream.behaviour = Chat()
            assert both.ask(at=1).status == 429
            both.gateways[0].kill()
        eventually(lambda: both.ask(at=1).status == 200, 10, every_s=0.1)
        assert both.gateways[1].metrics().value("llm_gateway_leases_lost_total") == 1
        eventually(lambda: places(both) == 0)


def test_the_end_of_a_gateway_leaves_nothing_untold() -> None:
    """What ended just before it is in the ledger; without Redis it ends all the same."""
    with fleet(LIMITS, size=2, env={"LLM_GATEWAY_REDIS_DEADLINE_S": "0.2"}) as both:
        both.upstream.behaviour = Chat(usage=Tokens(prompt=10, completion=3))
        assert statuses([both.ask() for _ in range(5)]) == {200: 5}
        both.gateways[0].stop()
        assert both.usage() == {"requests": 5, "input": 50, "output": 15, "cost": 80_000_000}
        assert both.ask(at=1).status == 200
        both.valkey.kill()
        assert both.ask(at=1).status == 200
        both.gateways[1].stop()


def test_what_is_not_reported_is_estimated_within_what_was_reserved(one: Fleet) -> None:
    """The data of an image is no text, and an output limit bounds what a backend can have made."""
    one.upstream.behaviour = Chat(pieces=("x" * 8000,), usage=None)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}}
    fields = {"model": "chat", "messages": [{"role": "user", "content": [picture]}], "max_tokens": 10}
    assert one.ask(fields).status == 200
    eventually(lambda: one.usage()["requests"] == 1)
    assert one.usage()["output"] == 10
    assert 0 < one.usage()["input"] < 2000
    assert one.usage()["estimated"] == 1
