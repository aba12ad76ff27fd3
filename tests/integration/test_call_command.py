"""``llm-gateway call`` and ``keys create --redis`` as processes, before a real gateway and a real Valkey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from gateway.redis import names
from tests.support.documents import echo_registry, new_key
from tests.support.faults import close_mid_stream, plain_body, stream_without_done
from tests.support.gateway import GatewayProcess
from tests.support.scripts import json_reply
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey
from tests.support.waiting import eventually, free_port

KEY = new_key()
CALL = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server for this module."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(valkey: Valkey) -> Iterator[GatewayProcess]:
    """A gateway that shares it and has no admin API."""
    with GatewayProcess(echo_registry(KEY), key=KEY, env={"LLM_GATEWAY_REDIS_URL": valkey.url}) as process:
        yield process


def run(valkey: Valkey, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env=kept | {"LLM_GATEWAY_REDIS_URL": valkey.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def records(valkey: Valkey) -> dict[str, dict[str, object]]:
    """What the store of keys holds, by id."""
    with redis_py.Redis.from_url(valkey.url) as client:
        found = client.hgetall(names.keys())
    return {name.decode(): json.loads(value) for name, value in found.items() if name != b"head"}


def test_key_in_redis_opens_a_gateway_without_an_admin_api(valkey: Valkey, gateway: GatewayProcess) -> None:
    """The first key of an installation: on standard output alone, its digest alone in Redis, at work at once."""
    made = run(valkey, "keys", "create", "--redis", "--tenant", "acme", "--name", "first")
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")
    assert key.startswith("lgw_")
    assert key not in json.dumps(records(valkey))
    with gateway.client() as client:
        eventually(lambda: client.request("/v1/chat/completions", CALL, key=key).status == 200)
    again = run(valkey, "keys", "create", "--redis", "--tenant", "acme", "--name", "first")
    assert again.returncode == 1
    assert again.stdout == "", "no key that opens nothing"
    assert "There is a key first already" in again.stderr


def test_key_goes_to_one_place(valkey: Valkey, tmp_path: Path) -> None:
    """A file or Redis; and Redis must be there."""
    both = run(valkey, "keys", "create", "--redis", "--tenant", "acme", "--write", str(tmp_path / "key.yaml"))
    assert both.returncode == 2
    assert not (tmp_path / "key.yaml").exists()
    with Valkey() as gone:
        pass
    away = run(gone, "keys", "create", "--redis", "--tenant", "acme")
    assert away.returncode == 1
    assert away.stdout == ""
    assert "Redis cannot be asked" in away.stderr


def test_call_for_a_tenant_leaves_one_record_however_often(valkey: Valkey, gateway: GatewayProcess) -> None:
    """A key of five minutes, narrowed to the scenario, in place of the one before."""
    for _ in range(2):
        called = run(valkey, "call", "--url", gateway.base_url, "--model", "chat", "--tenant", "acme")
        assert called.returncode == 0, called.stderr
        first, second = called.stdout.splitlines()
        assert first.startswith("plain: ")
        assert second.startswith("stream: ")
        assert second.endswith(" events, complete")
    found = {name: record for name, record in records(valkey).items() if "temporary" in name}
    (record,) = found.values()
    assert record["revision"] == 2
    spec = record["document"]["spec"]  # type: ignore[index]
    assert spec["scenarios"] == ["chat"]
    assert len(spec["digests"]) == 1
    assert "expiresAt" in spec["digests"][0]


def test_call_with_a_key_and_without(valkey: Valkey, gateway: GatewayProcess, tmp_path: Path) -> None:
    """A key from a file calls; without one the refusal is what is expected; a wrong one is a failure at once."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    called = run(valkey, "call", "--url", gateway.base_url, "--model", "chat", "--key-file", str(path))
    assert called.returncode == 0, called.stderr
    refused = run(valkey, "call", "--url", gateway.base_url, "--without-key")
    assert (refused.returncode, refused.stdout) == (0, "without a key: refused, as it should be\n")
    path.write_text(new_key())
    wrong = run(valkey, "call", "--url", gateway.base_url, "--model", "chat", "--key-file", str(path), "--wait", "50s")
    assert wrong.returncode == 1
    assert "the call failed with 401" in wrong.stderr
    assert run(valkey, "call", "--url", gateway.base_url).returncode == 2


def test_call_of_nobody_and_of_a_broken_stream_fails(valkey: Valkey, tmp_path: Path) -> None:
    """It waits for a gateway to come, not for ever; a stream that ends too early is no success."""
    nobody = run(valkey, "call", "--url", f"http://127.0.0.1:{free_port()}", "--without-key", "--wait", "600ms")
    assert nobody.returncode == 1
    assert "cannot be reached" in nobody.stderr
    path = tmp_path / "key"
    path.write_text("some-key-of-24-characters")
    with ScriptedUpstream() as upstream:
        for ending in (close_mid_stream(), stream_without_done()):
            upstream.enqueue(json_reply(json.loads(plain_body())), ending)
            broken_off = run(valkey, "call", "--url", upstream.url, "--key-file", str(path))
            assert broken_off.returncode == 1
            assert "the stream failed" in broken_off.stderr
