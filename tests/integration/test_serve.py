"""The process tree of ``llm-gateway serve``: starting, refusing to start, workers, the embedded Valkey."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartGateway
from tests.support.client import RawClient
from tests.support.documents import api_key, echo_backend, echo_registry, new_key, scenario, tenant
from tests.support.gateway import ROOT, GatewayProcess
from tests.support.waiting import eventually, free_port

PATH = "/v1/chat/completions"
BODY = {"model": "chat", "messages": [{"role": "user", "content": "one two three"}]}


def run_serve(env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``serve`` where it should refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LLM_GATEWAY_REGISTRY": str(folder), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def valkey_of(gateway: GatewayProcess) -> int:
    """The process id of the embedded Valkey."""
    return next(pid for pid in gateway.pids() if psutil.Process(pid).name().startswith("valkey"))


def workers_of(gateway: GatewayProcess) -> set[int]:
    """The process ids of the workers."""
    main, *others = gateway.pids()
    return {pid for pid in others if psutil.Process(pid).name() == psutil.Process(main).name()}


# -- refusing to start


def test_wrong_settings_are_named_and_nothing_starts(tmp_path: Path) -> None:
    """Exit code 2, every wrong setting on standard error, nothing on standard output."""
    done = run_serve({"LLM_GATEWAY_WORKERS": "none", "LLM_GATEWAY_DRAIN_S": "soon"}, tmp_path)
    assert done.returncode == 2
    assert "LLM_GATEWAY_WORKERS" in done.stderr
    assert "LLM_GATEWAY_DRAIN_S" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_bad_registry_is_listed_whole_before_anything_listens(tmp_path: Path) -> None:
    """Exit code 2, every problem with its file and field; the ports were never taken."""
    (tmp_path / "a.yaml").write_text("apiVersion: llmgateway.dev/v1alpha1\nkind: Backend\nmetadata: {name: a}\nspec: 1")
    (tmp_path / "b.yaml").write_text("kind: Tenant")
    done = run_serve({"LLM_GATEWAY_LISTEN": "127.0.0.1:0", "LLM_GATEWAY_MANAGEMENT_LISTEN": "127.0.0.1:0"}, tmp_path)
    assert done.returncode == 2
    assert "a.yaml" in done.stderr
    assert "b.yaml" in done.stderr
    assert "listening" not in done.stdout


@pytest.mark.parametrize("name", ["LLM_GATEWAY_LISTEN", "LLM_GATEWAY_MANAGEMENT_LISTEN"])
def test_a_port_in_use_is_named(name: str, tmp_path: Path) -> None:
    """At once, with exit code 2, rather than after retries."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = {
            each: f"127.0.0.1:{free_port()}" for each in ("LLM_GATEWAY_LISTEN", "LLM_GATEWAY_MANAGEMENT_LISTEN")
        }
        done = run_serve(addresses | {name: f"127.0.0.1:{taken.getsockname()[1]}"}, tmp_path)
    assert done.returncode == 2
    assert f"{name}: cannot listen on 127.0.0.1" in done.stderr
    assert "in use" in done.stderr


# -- starting


def test_start_up_says_what_it_does_not_share_and_does_not_know(start_gateway: StartGateway) -> None:
    """Limits in one line, backends that outlast a drain, misspelt variables; everything as JSON lines."""
    key = new_key()
    limits = [{"unit": "requests", "per": "minute", "amount": 600}]
    documents = [
        echo_backend("slow", timeouts={"total": "9m"}),
        scenario("chat", "slow"),
        tenant("acme", limits=limits),
        tenant("beta", limits=limits),
        api_key("acme-key", key),
    ]
    gateway = start_gateway(documents, key=key, env={"LLM_GATEWAY_WORKRES": "2"})
    warnings = [line["message"] for line in gateway.logs() if line["level"] == "warning"]
    assert len([text for text in warnings if "LLM_GATEWAY_REDIS_URL" in text and "onRedisLoss" in text]) == 1
    assert any("slow" in text and "LLM_GATEWAY_DRAIN_S" in text for text in warnings)
    assert any("LLM_GATEWAY_WORKRES" in text for text in warnings)
    gateway.stop()
    assert gateway.stray_output() == []


def test_the_open_file_limit_is_raised(start_gateway: StartGateway) -> None:
    """Each connection is a file: the soft limit is brought up to the hard one."""
    gateway = start_gateway(echo_registry(new_key()), args=())
    for pid in gateway.pids():
        soft, hard = psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft == hard


def test_the_management_port_answers_in_our_envelope_and_shows_nothing_else(start_gateway: StartGateway) -> None:
    """No documentation page, no tenants' endpoints; unknown paths and methods are JSON errors."""
    gateway = start_gateway(echo_registry(new_key()))
    assert gateway.management("/livez").json() == {"status": "ok"}
    assert gateway.management("/readyz").json() == {"status": "ok"}
    for path in ("/docs", "/v1/models", "/nope"):
        answer = gateway.management(path)
        assert (answer.status, answer.json()["error"]["code"]) == (404, "unknown_url")
    with RawClient("127.0.0.1", gateway.management_port) as client:
        answer = client.request("/livez", b"", method="POST")
        assert (answer.status, answer.json()["error"]["code"]) == (405, "method_not_allowed")
        scrape = client.request("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
        assert scrape.header(
            "content-type",
        ).startswith("application/openmetrics-text")  # type: ignore[union-attr]
        assert scrape.body.endswith(b"# EOF\n")
    with gateway.client() as client:
        assert client.request("/metrics").status == 404


def test_the_settings_of_connections_reach_the_data_port(start_gateway: StartGateway) -> None:
    """Header timeout, header bounds and maximum age, through the shipped process."""
    key = new_key()
    env = {
        "LLM_GATEWAY_CLIENT_HEADER_TIMEOUT_S": "300ms",
        "LLM_GATEWAY_MAX_HEADER_COUNT": "10",
        "LLM_GATEWAY_CLIENT_CONNECTION_MAX_AGE_S": "1s",
    }
    gateway = start_gateway(echo_registry(key), key=key, env=env)
    with gateway.client() as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n")
        assert client.read_response().status == 408
    with gateway.client() as client:
        assert client.request("/v1/models", headers={f"x-{number}": "1" for number in range(12)}).status == 431
    with gateway.client() as client:
        eventually(lambda: client.request(PATH, BODY, key=key).header("connection") == "close", every_s=0.1)


# -- workers


def test_workers_share_the_ports_and_one_scrape_counts_them_all(start_gateway: StartGateway) -> None:
    """Every request is counted once, whoever served it and whoever is asked."""
    key = new_key()
    gateway = start_gateway(echo_registry(key), key=key, env={"LLM_GATEWAY_WORKERS": "2"})
    eventually(lambda: len(workers_of(gateway)) == 2)
    for _ in range(40):
        with gateway.client() as client:
            assert client.request(PATH, BODY, key=key).status == 200
    for _ in range(5):
        gateway.wait_for_metric("llm_gateway_requests_total", 40, code="200")
    gateway.wait_for_metric("llm_gateway_inflight_requests", 0)
    assert gateway.metrics().value("llm_gateway_registry_generation") == 1


def test_a_killed_worker_is_replaced_and_the_counts_stay(start_gateway: StartGateway) -> None:
    """The other goes on; what the dead one counted stays counted, what it had under way does not."""
    key = new_key()
    gateway = start_gateway(echo_registry(key), key=key, env={"LLM_GATEWAY_WORKERS": "2"})
    for _ in range(10):
        with gateway.client() as client:
            assert client.request(PATH, BODY, key=key).status == 200
    gateway.wait_for_metric("llm_gateway_requests_total", 10, code="200")
    eventually(lambda: len(workers_of(gateway)) == 2)
    victim = min(workers_of(gateway))
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in workers_of(gateway) and len(workers_of(gateway)) == 2, 10)
    with gateway.client() as client:
        assert client.request(PATH, BODY, key=key).status == 200
    gateway.wait_for_metric("llm_gateway_requests_total", 11, code="200")
    gateway.wait_for_metric("llm_gateway_inflight_requests", 0)


def test_a_worker_that_comes_late_serves_the_registry_of_now(start_gateway: StartGateway) -> None:
    """A key revoked before a worker was replaced opens nothing in the new one, not even for a moment."""
    key, other = new_key(), new_key()
    gateway = start_gateway([*echo_registry(key), api_key("other", other)], key=key)
    with gateway.client() as client:
        assert client.request(PATH, BODY, key=other).status == 200
    gateway.write_registry(echo_registry(key))
    gateway.wait_for_log(lambda line: "generation 2" in line.get("message", ""))
    before = workers_of(gateway)
    os.kill(before.pop(), signal.SIGKILL)
    with gateway.client(timeout_s=10) as client:
        assert client.request(PATH, BODY, key=other).status == 401
        assert client.request(PATH, BODY, key=key).status == 200


def test_workers_end_when_the_main_process_is_killed(start_gateway: StartGateway) -> None:
    """Nobody would replace or stop them: they drain by themselves."""
    gateway = start_gateway(echo_registry(new_key()), env={"LLM_GATEWAY_WORKERS": "2"})
    eventually(lambda: len(workers_of(gateway)) == 2)
    workers = workers_of(gateway)
    gateway.signal(signal.SIGKILL)
    gateway.process.wait(10)
    eventually(lambda: not any(map(running, workers)), 10)


# -- the embedded Valkey


def test_the_embedded_valkey_is_ours_alone_and_goes_last(start_gateway: StartGateway) -> None:
    """In a session of its own, on loopback, with a password; gone after an orderly end."""
    gateway = start_gateway(echo_registry(new_key()), env={"LLM_GATEWAY_REDIS_URL": "embedded"})
    pid = valkey_of(gateway)
    assert os.getsid(pid) == pid
    listening = [each.laddr for each in psutil.Process(pid).net_connections("tcp") if each.status == "LISTEN"]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    with socket.create_connection(("127.0.0.1", listening[0].port), timeout=5) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100).startswith(b"-NOAUTH")
    gateway.stop()
    assert not running(pid)


def test_the_embedded_valkey_survives_ctrl_c_until_the_gateway_has_ended(start_gateway: StartGateway) -> None:
    """A terminal's SIGINT reaches the gateway's group, not Valkey's."""
    gateway = start_gateway(echo_registry(new_key()), env={"LLM_GATEWAY_REDIS_URL": "embedded"})
    pid = valkey_of(gateway)
    os.killpg(gateway.process.pid, signal.SIGINT)
    assert gateway.wait_exit() == 0
    assert not running(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_embedded_valkey_does_not_outlive_a_killed_gateway(start_gateway: StartGateway) -> None:
    """Whatever kills the main process."""
    gateway = start_gateway(echo_registry(new_key()), env={"LLM_GATEWAY_REDIS_URL": "embedded"})
    pid = valkey_of(gateway)
    gateway.signal(signal.SIGKILL)
    gateway.process.wait(10)
    eventually(lambda: not running(pid))


# -- development


def test_the_factory_serves_the_same_application_on_another_server(tmp_path: Path) -> None:
    """``uvicorn --factory``: both ports, and an end that leaves nothing."""
    registry = tmp_path / "registry"
    registry.mkdir()
    data, management = free_port(), free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "gateway.app.factory:create_app", "--port", str(data)]
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "LLM_GATEWAY_REGISTRY": str(registry),
        "LLM_GATEWAY_MANAGEMENT_LISTEN": f"127.0.0.1:{management}",
        "LLM_GATEWAY_REDIS_URL": "embedded",
    }

    def ready() -> bool:
        try:
            with RawClient("127.0.0.1", data), RawClient("127.0.0.1", management) as client:  # both
                return client.request("/readyz", headers={"connection": "close"}).status == 200
        except ConnectionError:
            return False

    with subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            eventually(ready, 20)
            with RawClient("127.0.0.1", data) as client:
                assert client.request("/v1/models", headers={"connection": "close"}).status == 401
            children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            assert not any(map(running, children))
        finally:
            process.kill()
