"""Discovery keeps what it was told last, and changes what it says only when the endpoints do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.routing.discovery import Discovery
from tests.unit.routing.slices import piece, pod, service_of

QWEN = service_of("models", "qwen", 8000)


class FakeLoop:
    """Remembers what it was made with."""

    def __init__(self, path: str, selector: str, told: Callable[[Any], None], keep: Callable[[Any], Any]) -> None:
        self.path, self.selector, self.told, self.keep = path, selector, told, keep
        self.failure: Exception | None = None
        self.calls: list[str] = []

    def start(self) -> None:
        """Noted."""
        self.calls.append("start")

    def stop(self, timeout_s: float = 0.0) -> None:
        """Noted."""
        self.calls.append(f"stop {timeout_s:g}")


def discover(*namespaces: str) -> tuple[Discovery, list[FakeLoop]]:
    """One with fake loops."""
    loops: list[FakeLoop] = []

    def new_loop(*arguments: Any) -> FakeLoop:
        loops.append(FakeLoop(*arguments))
        return loops[-1]

    discovery = Discovery(namespaces)
    discovery.start(new_loop)
    return discovery, loops


def test_each_namespace_is_watched() -> None:
    """Slices of Services only; every watch is told to end before any is waited for."""
    discovery, loops = discover("models", "more")
    assert [loop.path for loop in loops] == [
        "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices",
        "/apis/discovery.k8s.io/v1/namespaces/more/endpointslices",
    ]
    assert {loop.selector for loop in loops} == {"kubernetes.io/service-name"}
    discovery.stop()
    assert [loop.calls for loop in loops] == [["start", "stop 0", "stop 1"]] * 2


def test_a_start_waits_until_each_namespace_is_known_or_cannot_be() -> None:
    """One that may not be read keeps nobody from starting; it is told in the log."""
    assert Discovery(("models",)).waiting_for == ["endpointslices of models"]
    discovery, (models, more) = discover("models", "more")
    assert discovery.waiting_for == ["endpointslices of models", "endpointslices of more"]
    models.told({})
    more.failure = OSError("forbidden")
    assert discovery.waiting_for == []
    discovery.stop()
    assert discovery.knows("models")


def test_endpoints_follow_the_slices() -> None:
    """Of the Service and namespace that is asked for; nothing known is no endpoint, and told apart."""
    discovery, (loop, _) = discover("models", "more")
    assert (discovery.ready(QWEN), discovery.knows("models")) == ((), False)
    loop.told({("models", "qwen-a"): piece(pod("10.0.0.1"))})
    assert ([each.addresses for each in discovery.ready(QWEN)], discovery.knows("models")) == ([("10.0.0.1",)], True)
    assert discovery.knows("more") is False
    for other in (
        service_of("more", "qwen", 8000),
        service_of("models", "gpt", 8000),
        service_of("models", "qwen", "grpc"),
    ):
        assert discovery.ready(other) == ()
    loop.told({})
    assert discovery.ready(QWEN) == ()


def test_the_same_endpoints_are_the_same_object() -> None:
    """So that whoever calls sees with one comparison that nothing has changed."""
    discovery, (loop,) = discover("models")
    one, other = piece(pod("10.0.0.1")), {**piece(pod("10.9.9.9"))}
    other["metadata"] = {**other["metadata"], "labels": {"kubernetes.io/service-name": "gpt"}}
    loop.told({("models", "a"): one})
    known = discovery.ready(QWEN)
    assert discovery.ready(QWEN) is known
    loop.told({("models", "a"): piece(pod("10.0.0.1")), ("models", "b"): other})
    assert discovery.ready(QWEN) is known
    loop.told({("models", "a"): piece(pod("10.0.0.1"), pod("10.0.0.2", ready=False))})
    assert discovery.ready(QWEN) is known
    loop.told({("models", "a"): piece(pod("10.0.0.1"), pod("10.0.0.2"))})
    assert len(discovery.ready(QWEN)) == 2
