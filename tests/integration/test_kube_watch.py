"""The lane to the Kubernetes API over real sockets, against a simulated API server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trustme
import yaml

from gateway.errors import KubernetesFailure, SettingsInvalid
from gateway.kube.client import APPLY_PATCH, KubeClient, Limits
from gateway.kube.config import Access, configuration
from gateway.kube.listwatch import ListWatch, Resource, WatchOptions
from tests.support.kube import KubeServer, kubeconfig
from tests.support.kube_values import Object
from tests.support.waiting import eventually

PATH = "/apis/llmgateway.dev/v1alpha1/namespaces/registry/backends"
LIMITS = Limits()
QUICK = WatchOptions(backoff_max_s=0.2)


def backend(name: str, **spec: object) -> Object:
    """A document of a backend."""
    return {"apiVersion": "llmgateway.dev/v1alpha1", "kind": "Backend", "metadata": {"name": name}, "spec": spec}


def client_of(kube: KubeServer, folder: Path, limits: Limits = LIMITS) -> KubeClient:
    """A client that is configured by a kubeconfig file."""
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig(kube.url, token="sesame")))
    return KubeClient(configuration(Access(kubeconfig=path)), limits, "test")


@contextmanager
def watched(client: KubeClient, options: WatchOptions = QUICK) -> Iterator[ListWatch]:
    """A loop over the backends, with its first list."""
    loop = ListWatch(client, Resource(path=PATH), lambda _: None, options)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop(10)
        client.close()


def cpu_s(thread_id: int | None) -> float:
    """CPU seconds that a thread of this process has used."""
    return next(each.user_time + each.system_time for each in psutil.Process().threads() if each.id == thread_id)


def names(loop: ListWatch) -> list[str]:
    """What the loop knows."""
    return sorted(name for _, name in loop.objects or {})


def test_changes_arrive_and_an_idle_watch_costs_nothing(tmp_path: Path) -> None:
    """A change is known at once; while nothing happens not one request is made and no CPU time is used."""
    with KubeServer(token="sesame") as kube, watched(client_of(kube, tmp_path)) as loop:
        eventually(lambda: kube.watching("backends") == 1)
        kube.put(backend("a", model="x"))
        eventually(lambda: names(loop) == ["a"])
        kube.put(backend("a", model="y"))
        eventually(lambda: loop.objects is not None and loop.objects["registry", "a"]["spec"] == {"model": "y"})
        kube.delete("Backend", "a")
        eventually(lambda: loop.objects == {})
        asked, thread = len(kube.requests), loop._thread
        assert thread is not None
        before = cpu_s(thread.native_id)
        kube.bookmark()
        eventually(lambda: loop._version == str(kube._version))
        assert len(kube.requests) == asked
        assert cpu_s(thread.native_id) - before <= 0.02  # the clock ticks every 10 ms


def test_it_survives_what_an_api_server_does(tmp_path: Path) -> None:
    """Ended, cut and expired watches, a storm of 5xx, forbidden lists: afterwards it is current again."""
    with KubeServer(token="sesame") as kube, watched(client_of(kube, tmp_path)) as loop:
        eventually(lambda: kube.watching("backends") == 1)

        def becomes_current(name: str) -> None:
            kube.put(backend(name))
            eventually(lambda: name in names(loop), 10, what=name)

        kube.end_watches()
        becomes_current("ended")
        kube.cut_watches()
        becomes_current("cut")
        kube.expire(tell=True)
        becomes_current("expired")
        kube.fail(503, times=5)
        kube.cut_watches()
        becomes_current("storm")
        kube.fail(403, action="list", times=3)
        kube.expire(tell=True)
        eventually(lambda: loop.failure is not None and loop.failure.status == 403)
        assert "storm" in names(loop)
        becomes_current("forbidden")
        assert kube.asked("list", "backends") <= 3 + 3


def test_a_watch_that_hangs_is_opened_again(tmp_path: Path) -> None:
    """A connection that stays open and says nothing does not hide changes for longer than the bound."""
    options = WatchOptions(idle_s=0.5, backoff_max_s=0.2)
    with KubeServer(token="sesame") as kube, watched(client_of(kube, tmp_path), options) as loop:
        eventually(lambda: kube.watching("backends") == 1)
        kube.stall_watches()
        kube.put(backend("hidden"))
        eventually(lambda: names(loop) == ["hidden"], 10)
        assert kube.asked("list", "backends") == 1


def test_a_server_that_is_gone_is_found_again(tmp_path: Path) -> None:
    """What was known stays known while there is no server; a new one at its address is listed and watched."""
    with KubeServer(token="sesame") as kube:
        kube.put(backend("a"))
        with watched(client_of(kube, tmp_path)) as loop:
            eventually(lambda: names(loop) == ["a"])
            kube.end()
            eventually(lambda: loop.failure is not None)
            assert names(loop) == ["a"]
            successor = KubeServer(token="sesame", version=2000)
            successor.port = kube.port
            with successor:
                successor.put(backend("b"))
                eventually(lambda: names(loop) == ["b"], 10)
                loop.stop(10)


def test_stopping_ends_a_waiting_watch_at_once(tmp_path: Path) -> None:
    """A process that ends does not wait for an API server that has nothing to say."""
    with KubeServer(token="sesame") as kube, watched(client_of(kube, tmp_path)) as loop:
        eventually(lambda: kube.watching("backends") == 1)
        loop.stop(10)
        assert loop._thread is not None
        assert not loop._thread.is_alive()


def test_a_server_that_takes_requests_and_never_answers_is_given_up(tmp_path: Path) -> None:
    """Every request has a time limit, and says of itself that it was silence."""
    with KubeServer(token="sesame") as kube:
        kube.hang()
        client = client_of(kube, tmp_path, Limits(answer_s=0.2))
        with pytest.raises(KubernetesFailure) as failure:
            client.get(PATH)
        assert failure.value.silent
        assert "sesame" not in failure.value.text


def test_answers_and_events_have_a_largest_size(tmp_path: Path) -> None:
    """A list that is larger is a failure that says so; an event that is larger ends its watch, and the list has it."""
    with KubeServer(token="sesame") as kube:
        kube.put(backend("a", text="x" * 3000))
        with pytest.raises(KubernetesFailure, match="the answer is larger than 2000 bytes"):
            client_of(kube, tmp_path, Limits(answer_bytes=2000)).get(PATH)
        with watched(client_of(kube, tmp_path, Limits(event_bytes=2000))) as loop:
            eventually(lambda: kube.watching("backends") == 1)
            kube.put(backend("b", text="x" * 3000))
            eventually(
                lambda: loop.failure is not None and "an event is larger than 2000 bytes" in loop.failure.text, 10
            )
            assert names(loop) == ["a"]
            kube.expire(tell=True)
            eventually(lambda: names(loop) == ["a", "b"], 10)


def test_requests_carry_the_credential_over_tls_and_failures_do_not(tmp_path: Path) -> None:
    """A server is trusted by its authority alone; a token is sent and never told."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    (tmp_path / "token").write_text("sesame")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    with KubeServer(tls=context, token="sesame") as kube:
        access = Access(service=("127.0.0.1", str(kube.port)), credentials=tmp_path)
        client = KubeClient(configuration(access), Limits(), "llm-gateway/test")
        made = client.request("PATCH", f"{PATH}/a", {"fieldManager": "test"}, backend("a"), APPLY_PATCH)
        assert made["metadata"]["name"] == "a"
        assert kube.requests[-1].headers["user-agent"] == "llm-gateway/test"
        with pytest.raises(KubernetesFailure) as failure:
            client.get(f"{PATH}/missing")
        assert (failure.value.status, failure.value.reason) == (404, "NotFound")
        kube.token = "rotated"
        (tmp_path / "token").write_text("rotated\n")
        assert client.get(f"{PATH}/a") == made, "the file of now, not that of a minute ago"
        (tmp_path / "token").write_text("")
        assert client.get(f"{PATH}/a") == made, "what was good stays"
        (tmp_path / "token").write_text("wrong")
        stranger = KubeClient(configuration(access), Limits(), "test")
        with pytest.raises(KubernetesFailure) as failure:
            stranger.get(PATH)
        assert failure.value.status == 401
        assert "wrong" not in failure.value.text
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        with pytest.raises(KubernetesFailure, match="certificate"):
            KubeClient(configuration(access), Limits(), "test").get(PATH)


def test_what_is_missing_to_reach_the_cluster_is_named(tmp_path: Path) -> None:
    """Outside of a pod without a kubeconfig, or with half a service account, nothing starts."""
    with pytest.raises(SettingsInvalid, match="LLM_GATEWAY_KUBERNETES_CONFIG"):
        configuration(Access())
    with pytest.raises(SettingsInvalid, match="token file"):
        configuration(Access(service=("10.0.0.1", "443"), credentials=tmp_path))
    broken = tmp_path / "kubeconfig"
    broken.write_text("{}")
    with pytest.raises(SettingsInvalid):
        configuration(Access(kubeconfig=broken))
