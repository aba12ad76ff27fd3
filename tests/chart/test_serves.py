"""What is rendered really runs: the shipped gateway and a real Valkey, with its files, variables and commands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_py
import yaml

from tests.support.chart import (
    Object,
    gateway_pod,
    merged,
    notes,
    one,
    render,
    rendered,
    scenario,
    settings_of,
)
from tests.support.client import RawClient
from tests.support.gateway import ROOT, GatewayProcess
from tests.support.kubelet import Files, Kubelet, RenderedGateway, RenderedValkey
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

NO_SECRETS: Mapping[str, Files] = {}


@contextmanager
def valkey(objects: list[Object], root: Path, secrets: Mapping[str, Files]) -> Iterator[int]:
    """The rendered StatefulSet's container as a process; its port."""
    with RenderedValkey(objects, root, secrets) as server:
        yield server.port


def served(objects: list[Object], root: Path, secrets: Mapping[str, Files], **changed: str) -> RenderedGateway:
    """The rendered gateway, not started yet."""
    return RenderedGateway(objects, root, secrets, changed)


def run(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command of the gateway as a container or ``kubectl exec`` runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def command_of_notes(text: str, program: str) -> list[str]:
    """The words of a command that the notes show for a shell in the pod."""
    line = next(line for line in text.splitlines() if line.strip().startswith(program))
    return shlex.split(line.strip().rstrip(")"))[1:]


def test_default_values_serve_make_a_key_and_pass_their_test(tmp_path: Path) -> None:
    """The generated password opens Valkey, the notes' command makes a key, ``helm test``'s container makes its call."""
    objects = render({})
    with valkey(objects, tmp_path / "valkey", {}) as port:
        url = f"redis://127.0.0.1:{port}/0"
        assert settings_of(objects)["LLM_GATEWAY_REDIS_URL"] == "redis://gw-llm-gateway-valkey:6379/0"
        with served(objects, tmp_path / "gateway", {}, LLM_GATEWAY_REDIS_URL=url) as gateway:
            made = run(command_of_notes(notes({}), "llm-gateway keys create"), gateway.environment)
            assert made.returncode == 0, made.stderr
            key = made.stdout.strip()
            call = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
            with gateway.client() as client:
                eventually(lambda: client.request("/v1/chat/completions", call, key=key).status == 200)
            arguments, environment = container_of_test(objects, tmp_path / "test", gateway)
            tested = run(arguments, environment | {"LLM_GATEWAY_REDIS_URL": url})
            assert tested.returncode == 0, tested.stderr
            assert "plain: " in tested.stdout
            assert "complete" in tested.stdout
            password = gateway.kubelet.path("/etc/llm-gateway/settings/redis-credentials").read_text()
            with redis_py.Redis.from_url(url, password=password, decode_responses=True) as client:
                assert client.config_get("*append*")["appendonly"] == "yes"
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            with redis_py.Redis.from_url(url) as stranger, pytest.raises(redis_py.AuthenticationError):
                stranger.ping()


def container_of_test(
    objects: list[Object], root: Path, gateway: GatewayProcess, secrets: Mapping[str, Files] = NO_SECRETS
) -> tuple[list[str], dict[str, str]]:
    """The arguments and variables of the test's container, with the address and paths of these processes."""
    spec = one(objects, "Pod")["spec"]
    kubelet = Kubelet(objects, root, secrets)
    kubelet.mount(spec)
    arguments = [each.replace("http://gw-llm-gateway:80", gateway.base_url) for each in spec["containers"][0]["args"]]
    assert f"--url={gateway.base_url}" in arguments
    return [kubelet.text(each) for each in arguments], kubelet.environment(spec)


def test_without_a_redis_the_test_calls_with_the_key_of_a_secret(tmp_path: Path) -> None:
    """In the smallest scenario: the key of the Secret beside the chart is that of the registry."""
    objects = rendered("minimal")
    beside = yaml.safe_load((ROOT / "k8s" / "ci" / "minimal.yaml").read_text(encoding="utf-8"))
    secrets = {beside["metadata"]["name"]: {name: text.encode() for name, text in beside["stringData"].items()}}
    with served(objects, tmp_path / "gateway", secrets) as gateway:
        tested = run(*container_of_test(objects, tmp_path / "test", gateway, secrets))
    assert tested.returncode == 0, tested.stderr
    assert "plain: " in tested.stdout
    assert "complete" in tested.stdout


def test_changed_registry_and_rotated_secret_reach_a_running_gateway(tmp_path: Path) -> None:
    """As the kubelet swaps links: a new key opens, and the next call has the new credential, without a restart."""
    secrets = {
        "model-credentials": {"api-key": b"first-key\n"},
        "gateway-admin": {"token": b"admin-token-of-24-chars\n", "read-token": b"reader-token-of-24-chars"},
        "redis-credentials": {"password": b"none"},
    }
    with ScriptedUpstream() as upstream:
        target = {"registry": {"backends": {"model": {"url": f"{upstream.url}/v1"}}}}
        values = merged(scenario("production"), target)
        objects = render(values)
        with served(objects, tmp_path, secrets, LLM_GATEWAY_REDIS_URL="") as gateway:
            made = run(["keys", "create", "--tenant", "acme", "--name", "ci"], gateway.environment)
            key, _, document = made.stdout.partition("\n")
            registry = one(objects, "ConfigMap", "-registry")
            files = {name: text.encode() for name, text in registry["data"].items()}
            update = files | {"apikey.ci.yaml": document.encode()}
            gateway.kubelet.update("ConfigMap", registry["metadata"]["name"], update)
            call = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
            with gateway.client() as client:
                eventually(lambda: client.request("/v1/chat/completions", call, key=key).status == 200, 10)
                assert upstream.requests[-1].header("authorization") == "Bearer first-key"
                gateway.kubelet.update("Secret", "model-credentials", {"api-key": b"second-key"})

                def rotated() -> bool:
                    client.request("/v1/chat/completions", call, key=key)
                    return upstream.requests[-1].header("authorization") == "Bearer second-key"

                eventually(rotated, 10)
            old, new = "admin-token-of-24-chars", "another-token-of-24-chars"
            assert [operator(gateway, token) for token in ("", old, new)] == [401, 200, 401]
            gateway.kubelet.update("Secret", "gateway-admin", secrets["gateway-admin"] | {"token": new.encode()})
            assert [operator(gateway, token) for token in ("", old, new)] == [401, 401, 200]


def operator(gateway: GatewayProcess, token: str) -> int:
    """The status of a call of the admin API with this token."""
    with RawClient("127.0.0.1", gateway.management_port) as client:
        headers = {"authorization": f"Bearer {token}", "connection": "close"}
        return client.request("/admin/v1/tenants", headers=headers).status


def test_several_workers_serve_with_everything(tmp_path: Path) -> None:
    """The largest scenario starts, with its workers' metrics in shared memory."""
    password = {"valkey-password": {"password": b'with "quotes" and \\'}}
    secrets = password | {
        "gateway-admin": {"token": b"admin-token-of-24-chars", "read-token": b"reader-token-of-24-chars"},
        "model-credentials": {"api-key": b"a"},
        "other-credentials": {"api-key": b"b"},
    }
    objects = rendered("everything")
    with valkey(objects, tmp_path / "valkey", secrets) as port:
        url = f"redis://127.0.0.1:{port}/0"
        with redis_py.Redis.from_url(url, password='with "quotes" and \\') as client:
            assert client.ping(), "whatever characters a password has"
        with served(without_others(objects), tmp_path / "gateway", secrets, LLM_GATEWAY_REDIS_URL=url) as gateway:
            assert gateway.metrics().value("llm_gateway_registry_generation") > 0
            assert len(gateway.pids()) == 3, "the main process and two workers"
            unknown = [line for line in gateway.logs() if "is no setting" in str(line.get("message"))]
            assert unknown == []


def without_others(objects: list[Object]) -> list[Object]:
    """Without the volume that the scenario adds from an optional ConfigMap that nobody has."""
    deployment = one(objects, "Deployment")
    spec = gateway_pod(objects)
    container = spec["containers"][0]
    mounts = [each for each in container["volumeMounts"] if each["name"] != "authorities"]
    pod = spec | {"containers": [container | {"volumeMounts": mounts}]}
    changed = deployment | {"spec": deployment["spec"] | {"template": {"spec": pod}}}
    return [changed if each is deployment else each for each in objects]
