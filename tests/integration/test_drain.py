"""How the gateway ends: drains, second signals, and what happens to what is open. The shipped process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import StartGateway
from tests.support.client import Response, request_bytes
from tests.support.documents import new_key, openai_registry
from tests.support.gateway import ROOT, GatewayProcess
from tests.support.scripts import Chat, Gate, Script, stream
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

PATH = "/v1/chat/completions"
BODY = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}


class OpenStream:
    """A stream that has begun and ends when ``gate`` is opened."""

    def __init__(self, gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
        self.events = Chat().events("upstream-model")
        self.gate = Gate()
        whole = stream(self.events)
        upstream.enqueue(Script((*whole.steps[:2], self.gate, *whole.steps[2:])))
        self.client = gateway.client(timeout_s=20)
        self.client.send(request_bytes(PATH, BODY, key=gateway.key))
        self.head = self.client.read_head()
        self._reading = self.client.events(self.head)
        self.received = [next(self._reading)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def finish(self) -> None:
        """Let it end, and read it to its end: every event in order."""
        self.gate.open()
        self.received += self._reading
        assert self.received == self.events


@pytest.fixture
def slow_gateway(upstream: ScriptedUpstream, start_gateway: StartGateway) -> GatewayProcess:
    """One with a propagation delay long enough to look around in."""
    key = new_key()
    return start_gateway(
        openai_registry(upstream.url, key), key=key, env={"LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S": "1.5s"}
    )


@pytest.fixture
def quick_gateway(upstream: ScriptedUpstream, start_gateway: StartGateway) -> GatewayProcess:
    """One without a delay and with a short drain."""
    key = new_key()
    return start_gateway(openai_registry(upstream.url, key), key=key, env={"LLM_GATEWAY_DRAIN_S": "2s"})


def refused(port: int) -> bool:
    """Whether nobody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except ConnectionRefusedError:
        return True
    return False


def readiness(gateway: GatewayProcess) -> Response:
    """The present answer of /readyz."""
    return gateway.management("/readyz")


def test_a_drain_lets_an_open_stream_end_and_turns_nobody_away_during_the_delay(
    slow_gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """Unready at once; new calls answered with close during the delay; refused after it; the stream ends whole."""
    gateway = slow_gateway
    with OpenStream(gateway, upstream) as running:
        started = gateway.signal(signal.SIGTERM)
        eventually(lambda: readiness(gateway).status == 503, 1.0)
        assert readiness(gateway).json() == {"status": "unavailable", "reasons": ["draining"]}
        with gateway.client() as newcomer:
            response = newcomer.request(PATH, BODY | {"stream": False}, key=gateway.key)
            assert (response.status, response.header("connection")) == (200, "close")
            assert newcomer.closed_by_server()
        assert time.monotonic() - started < 1.5, "too slow to have tested anything"
        eventually(lambda: refused(gateway.port), 5.0)
        assert time.monotonic() - started >= 1.4
        assert gateway.management("/livez").status == 200
        assert gateway.metrics().value("llm_gateway_inflight_requests") == 1
        running.finish()
        assert gateway.wait_exit(5) == 0
        assert running.client.closed_by_server()
        line = gateway.wait_for_log(lambda line: line.get("stream") is True)
        assert (line["status"], line["outcome"]) == (200, "ok")


def test_idle_connections_do_not_hold_up_a_drain(quick_gateway: GatewayProcess) -> None:
    """A kept connection is closed, and the process ends long before the drain time is over."""
    with quick_gateway.client() as idle, quick_gateway.client() as fresh:
        idle.request("/v1/models", key=quick_gateway.key)
        started = quick_gateway.signal(signal.SIGTERM)
        assert idle.closed_by_server()
        assert fresh.closed_by_server()
        assert quick_gateway.wait_exit(5) == 0
        assert time.monotonic() - started < 1.5


def test_a_stream_that_outlasts_the_drain_is_cut(quick_gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """At the end of the drain time, by an event that says why; the upstream's connection is closed, the exit code 0."""
    with OpenStream(quick_gateway, upstream) as running:
        started = quick_gateway.signal(signal.SIGTERM)
        assert quick_gateway.wait_exit(8) == 0
        assert 1.9 < time.monotonic() - started < 6
        rest = running.client.read_to_end()
        assert b"[DONE]" not in rest
        assert b'"code":"shutting_down"' in rest
        upstream.wait_for_disconnect()
        line = quick_gateway.wait_for_log(lambda line: line.get("stream") is True)
        assert (line["status"], line["stream_end"]) == (503, "shutting_down")


def test_a_request_that_outlasts_the_drain_unanswered_is_told_so(
    quick_gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """With what the log says: 503, come back in a second, to another replica."""
    gate = Gate()
    upstream.enqueue(Script((gate,)))
    with quick_gateway.client(timeout_s=20) as client:
        client.send(request_bytes(PATH, BODY, key=quick_gateway.key))
        gate.wait_reached()
        quick_gateway.signal(signal.SIGTERM)
        response = client.read_response()
    assert (response.status, response.header("retry-after")) == (503, "1")
    assert response.json()["error"]["code"] == "shutting_down"
    line = quick_gateway.wait_for_log(lambda line: line.get("event") == "request")
    assert (line["status"], line["code"]) == (503, "shutting_down")
    assert quick_gateway.wait_exit(8) == 0


@pytest.fixture
def patient_gateway(upstream: ScriptedUpstream, start_gateway: StartGateway) -> GatewayProcess:
    """One that gives a kept connection a moment after SIGTERM, and accepts no new one: as the chart runs it."""
    key = new_key()
    return start_gateway(openai_registry(upstream.url, key), key=key, env={"LLM_GATEWAY_DRAIN_IDLE_S": "1.5s"})


def test_a_kept_connection_may_bring_one_more_request(patient_gateway: GatewayProcess) -> None:
    """Its client cannot know of the SIGTERM yet: it is answered, told to close, and the process ends."""
    gateway = patient_gateway
    with gateway.client() as kept, gateway.client() as fresh:
        assert kept.request("/v1/models", key=gateway.key).header("connection") is None
        gateway.signal(signal.SIGTERM)
        eventually(lambda: refused(gateway.port), 1.0)
        for client in (kept, fresh):
            response = client.request(PATH, BODY | {"stream": False}, key=gateway.key)
            assert (response.status, response.header("connection")) == (200, "close")
            assert client.closed_by_server()
        assert gateway.wait_exit(5) == 0


def test_an_idle_connection_is_closed_a_moment_after_the_signal(patient_gateway: GatewayProcess) -> None:
    """Not at once, since a request may be on its way; and not never, since nobody would ever know."""
    with patient_gateway.client() as idle:
        idle.request("/v1/models", key=patient_gateway.key)
        started = patient_gateway.signal(signal.SIGTERM)
        assert idle.closed_by_server()
        assert time.monotonic() - started >= 1.4
        assert patient_gateway.wait_exit(5) == 0


def test_the_request_after_a_stream_that_could_not_say_close_is_answered(
    patient_gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """The stream's head was sent before the signal, so its client uses the connection again, and is told then."""
    gateway = patient_gateway
    with OpenStream(gateway, upstream) as running:
        assert running.head.header("connection") is None
        gateway.signal(signal.SIGTERM)
        eventually(lambda: refused(gateway.port), 1.0)
        running.finish()
        response = running.client.request(PATH, BODY | {"stream": False}, key=gateway.key)
        assert (response.status, response.header("connection")) == (200, "close")
        assert running.client.closed_by_server()
        assert gateway.wait_exit(5) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_ends_it_at_once(
    second: signal.Signals, slow_gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """Streams are cut, and the exit code is that of an end that was asked for."""
    with OpenStream(slow_gateway, upstream) as running:
        slow_gateway.signal(signal.SIGTERM)
        eventually(lambda: readiness(slow_gateway).status == 503, 1.0)
        at = slow_gateway.signal(second)
        assert slow_gateway.wait_exit(5) == 0
        assert time.monotonic() - at < 1.5
        assert b"[DONE]" not in running.client.read_to_end()
        upstream.wait_for_disconnect()


def test_ctrl_c_drains_without_the_delay(slow_gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """SIGINT to every process of the group, as a terminal sends it: nobody waits for load balancers, streams do end."""
    with OpenStream(slow_gateway, upstream) as running:
        for pid in slow_gateway.pids():
            os.kill(pid, signal.SIGINT)
        eventually(lambda: refused(slow_gateway.port), 1.0)
        running.finish()
        assert slow_gateway.wait_exit(5) == 0


def test_a_supervisor_that_signals_every_process_gets_one_drain(
    quick_gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """A supervisor may send SIGTERM to the whole group: a worker that hears it twice does not end at once."""
    with OpenStream(quick_gateway, upstream) as running:
        for pid in reversed(quick_gateway.pids()):
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: refused(quick_gateway.port), 1.0)
        running.finish()
        assert quick_gateway.wait_exit(5) == 0


@pytest.mark.parametrize("harmless", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU])
def test_other_signals_change_nothing(harmless: signal.Signals, gateway: GatewayProcess) -> None:
    """They are explained in the log, and the same processes go on."""
    before = gateway.pids()
    gateway.signal(harmless)
    gateway.wait_for_log(lambda line: line.get("logger") == "gateway.app" and "SIG" in line["message"])
    assert gateway.pids() == before
    assert readiness(gateway).status == 200


def test_a_client_in_the_middle_of_a_request_is_answered(
    slow_gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """A body that arrives during the delay still counts; the answer says close."""
    with slow_gateway.client() as client:
        request = request_bytes(PATH, BODY | {"stream": False}, key=slow_gateway.key)
        client.send(request[:-5])
        slow_gateway.signal(signal.SIGTERM)
        eventually(lambda: readiness(slow_gateway).status == 503, 1.0)
        client.send(request[-5:])
        response = client.read_response()
        assert (response.status, response.header("connection")) == (200, "close")
    assert slow_gateway.wait_exit(5) == 0


def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    """As process 1 of a container it has to handle the signal itself, however early: before anything else is loaded."""
    (tmp_path / "gunicorn").mkdir()  # found first, so that the start waits here
    (tmp_path / "gunicorn" / "__init__.py").write_text("import time; print('starting', flush=True); time.sleep(60)\n")
    started = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "serve"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == "starting\n"
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 143
        assert started.stderr is not None
        assert started.stderr.read() == ""
