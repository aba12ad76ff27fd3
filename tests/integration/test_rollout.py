"""Canaries of real gateways that share a real Valkey: withdrawn together, for good, and never for nothing."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.support.admin import ADMIN_ENV, get
from tests.support.documents import api_key, new_key
from tests.support.faults import close_mid_stream
from tests.support.gateway import GatewayProcess
from tests.support.rollout import OVERRIDE, ByModel, Callers, ask, backends_asked, documents
from tests.support.scripts import Chat, Pause, Received, Script, error_reply
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

ABORT = {"errorRatio": 0.05, "firstTokenP95": "500ms", "minRequests": 20}
CANARY: dict[str, Any] = {"percent": 50, "sticky": "request", "override": OVERRIDE, "abort": ABORT}


class Fleet:
    """Two gateways, what they share, and how to change their registry."""

    def __init__(self, gateways: Sequence[GatewayProcess], upstream: ScriptedUpstream, valkey: Valkey) -> None:
        self.gateways, self.upstream, self.valkey = gateways, upstream, valkey
        self.answers = ByModel()

    def rollout(self, at: int = 0) -> dict[str, Any]:
        """The one rollout, as a gateway's admin API shows it."""
        (found,) = get(self.gateways[at], "/rollouts")["rollouts"] or ({"rollout": "", "state": "none"},)
        return dict(found)

    def until(self, state: str, timeout_s: float = 20.0) -> None:
        """Wait until every gateway says so."""
        for at in range(len(self.gateways)):
            eventually(lambda at=at: self.rollout(at)["state"] == state, timeout_s, what=state, every_s=0.05)  # type: ignore[misc]

    def change(self, **spec: Any) -> None:
        """Give the scenario another spec everywhere, and wait until every gateway knows its rollout."""
        former = [self.rollout(at)["rollout"] for at in range(len(self.gateways))]
        for each in self.gateways:
            generation = each.metrics().value("llm_gateway_registry_generation")
            each.write_registry(documents(self.upstream.url, each.key, **spec))
            each.wait_for_metric("llm_gateway_registry_generation", generation + 1)
        for at, known in enumerate(former):
            eventually(lambda at=at, known=known: self.rollout(at)["rollout"] != known, 20, every_s=0.05)  # type: ignore[misc]

    def asked_now(self, count: int = 20) -> set[str]:
        """Which backends answer so many calls from here on."""
        before = len(self.upstream.requests)
        for turn in range(count):
            ask(self.gateways[turn % len(self.gateways)])
        return set(backends_asked(self.upstream)[before:])


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    """Two gateways; reached through ``fleet`` only."""
    key = new_key()
    with contextlib.ExitStack() as stack:
        upstream, valkey = stack.enter_context(ScriptedUpstream()), stack.enter_context(Valkey())
        env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_REDIS_DEADLINE_S": "1"}
        held = documents(upstream.url, key)
        gateways = [stack.enter_context(GatewayProcess(held, key=key, env=env)) for _ in range(2)]
        yield Fleet(gateways, upstream, valkey)


@pytest.fixture
def fleet(running: Fleet, request: pytest.FixtureRequest) -> Fleet:
    """The two gateways, running a canary that nothing is known of yet: each test is another content of the scenario."""
    running.upstream.forget()
    running.upstream.behaviour = running.answers = ByModel()
    running.change(canary=CANARY, description=request.node.name)
    running.until("running")
    return running


def failing(every: int) -> Any:
    """A backend that fails one of so many requests."""
    turn = itertools.count()
    return lambda request: error_reply(500) if next(turn) % every == 0 else Chat()(request)


def withdrawn_lines(gateway: GatewayProcess) -> list[str]:
    """What a gateway told of the end of canaries."""
    messages = [str(line.get("message")) for line in gateway.logs()]
    return [each for each in messages if each.startswith("the canary of scenario chat is withdrawn")]


def test_a_failing_canary_is_withdrawn_everywhere_and_stays_so(fleet: Fleet) -> None:
    """One that fails a fifth: both gateways stop, each says so once, and a restart changes nothing.

    The registry's next word on the scenario begins anew.
    """
    fleet.answers.behaviours["new"] = failing(5)
    with Callers(fleet.gateways):
        fleet.until("withdrawn")
    assert fleet.asked_now() == {"main"}
    events = fleet.valkey.command("XRANGE", "lgw:1:{acme}:events", "-", "+").split("\r\n")
    assert {events[at + 2] for at, word in enumerate(events) if word == "variant"} == {"base", "canary"}
    for at, gateway in enumerate(fleet.gateways):
        gateway.wait_for_log(lambda line: "is withdrawn" in str(line.get("message")))
        (line,) = withdrawn_lines(gateway)
        assert "calls failed, which is more than the 5.00% of errorRatio" in line
        gateway.wait_for_metric("llm_gateway_canary_withdrawn", 1, scenario="chat")
        found = fleet.rollout(at)
        assert found["canary"]["failures"] >= 4
        assert found["base"]["failures"] == 0
        assert found["since"] is not None
    assert fleet.rollout(0)["since"] == fleet.rollout(1)["since"]
    fleet.gateways[0].stop()
    fleet.gateways[0].restart()
    fleet.until("withdrawn")
    assert fleet.asked_now() == {"main"}
    fleet.answers.behaviours.clear()
    fleet.change(canary=CANARY, description="mended")
    fleet.until("running")
    assert fleet.asked_now(60) == {"main", "new"}
    assert fleet.gateways[1].metrics().value("llm_gateway_canary_withdrawn", scenario="chat") == 0


def test_answers_that_were_kept_say_nothing_of_a_canary(fleet: Fleet) -> None:
    """Whole or streamed: fast successes that no backend made would hide the failures of those that one did make."""
    fleet.change(canary=CANARY | {"percent": 100}, cache={"mode": "exact"}, description="kept")
    fleet.until("running")
    gateway = fleet.gateways[0]

    def asked(text: str, **fields: Any) -> str | None:
        return ask(gateway, messages=[{"role": "user", "content": text}], **fields).header("x-llm-gateway-cache")

    assert asked("one") == "miss"
    eventually(lambda: asked("one") == "hit", what="an answer that is kept")
    assert [asked("one", stream=bool(turn % 2)) for turn in range(20)] == ["hit"] * 20
    assert asked("two") == "miss"  # told after all that came before it
    made = len(fleet.upstream.requests)
    eventually(lambda: fleet.rollout()["canary"]["requests"] >= made, what="what the calls showed")
    assert fleet.rollout()["canary"]["requests"] == made


def test_a_slow_canary_is_withdrawn(fleet: Fleet) -> None:
    """Streams whose first token comes later than allowed, though none fails."""

    def slow(request: Received) -> Script:
        return Script((Pause(0.7), *Chat()(request).steps))

    fleet.answers.behaviours["new"] = slow
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(Callers(fleet.gateways, stream=True))
        fleet.until("withdrawn")
    assert "first tokens came after the 0.5 s of firstTokenP95" in fleet.rollout()["reason"]
    assert fleet.rollout()["canary"]["failures"] == 0


def test_broken_streams_are_failures_and_refusals_are_not(fleet: Fleet) -> None:
    """A stream that breaks after its 200 counts; a 400 of the backend, which is the caller's, does not."""
    fleet.answers.behaviours["new"] = error_reply(400)
    with Callers(fleet.gateways):
        eventually(lambda: fleet.rollout()["canary"]["requests"] >= 40, 20)
    assert fleet.rollout()["state"] == "running"
    fleet.answers.behaviours["new"] = close_mid_stream()
    with Callers(fleet.gateways, stream=True):
        fleet.until("withdrawn")


def test_a_healthy_canary_stays_though_the_base_fails(fleet: Fleet) -> None:
    """What the base does is no evidence; 1 % of failures is within the bound of 5 %."""
    fleet.answers.behaviours = {"new": failing(100), "main": error_reply(500)}
    with Callers(fleet.gateways):
        eventually(lambda: fleet.rollout()["canary"]["requests"] >= 150, 30)
    found = fleet.rollout()
    assert (found["state"], found["base"]["failures"] > 50) == ("running", True)


def test_without_redis_for_a_while_each_gateway_judges_what_it_sees(fleet: Fleet) -> None:
    """Calls keep their latency, the canary is withdrawn all the same, and Redis is told when it is back."""
    fleet.valkey.kill()
    fleet.answers.behaviours["new"] = error_reply(500)
    began = time.monotonic()
    with Callers(fleet.gateways):
        fleet.until("withdrawn")
    assert time.monotonic() - began < 20
    fleet.valkey.start()
    (key,) = eventually(lambda: _rollout_keys(fleet.valkey), 20)
    eventually(lambda: "withdrawn" in fleet.valkey.command("HGETALL", key), 20)
    assert fleet.asked_now() == {"main"}


def _rollout_keys(valkey: Valkey) -> list[str]:
    return [line for line in valkey.command("KEYS", "*rollout*").split("\r\n") if line.startswith("lgw")]


def test_a_key_stays_on_its_side(start_gateway: Any, upstream: ScriptedUpstream) -> None:
    """Of twenty keys some get the canary, each always or never, and a second gateway agrees; the log says which."""
    keys = [new_key() for _ in range(20)]
    held = documents(upstream.url, keys[0], canary={"percent": 50, "override": OVERRIDE})
    held += [api_key(f"key-{n}", each) for n, each in enumerate(keys[1:])]
    sides: list[list[str]] = []
    gateways = [start_gateway(held, key=keys[0]) for _ in range(2)]
    for gateway in gateways:
        _until_canary(gateway, keys)
        before = len(upstream.requests)
        for key in keys:
            for _ in range(2):
                with gateway.client() as client:
                    client.request("/v1/chat/completions", {"model": "chat", "messages": [{}]}, key=key)
        sides.append(backends_asked(upstream)[before:])
    assert sides[0] == sides[1]
    assert all(first == second for first, second in zip(sides[0][::2], sides[0][1::2], strict=True))
    assert set(sides[0]) == {"main", "new"}
    lines = [line for line in gateways[0].logs() if line.get("event") == "request"]
    assert {line["backend"]: line["variant"] for line in lines} == {"main": "base", "new": "canary"}
    assert {line["generation"] for line in lines} == {1}
    shown = gateways[0].metrics()
    assert shown.value("llm_gateway_requests_total", variant="canary", backend="new") >= 2


def _until_canary(gateway: GatewayProcess, keys: Sequence[str]) -> None:
    """Wait until the canary has begun to get calls."""

    def reached() -> bool:
        with gateway.client() as client:
            for key in keys:
                client.request("/v1/chat/completions", {"model": "chat", "messages": [{}]}, key=key)
        return any(line.get("variant") == "canary" for line in gateway.logs())

    eventually(reached, 20, every_s=0.1)
