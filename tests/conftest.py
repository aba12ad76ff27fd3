"""Fixtures that every test may use: a scripted upstream and the gateway in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.support.documents import Document, echo_registry, new_key, openai_registry
from tests.support.gateway import GatewayProcess
from tests.support.upstream import ScriptedUpstream

StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream of this test's own; it answers every chat request well until told otherwise."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def start_gateway() -> Iterator[StartGateway]:
    """Starts gateways that end with the test: ``start_gateway(documents, key=..., env=..., ...)``.

    A test that ends one itself with ``stop``, ``kill`` or ``wait_exit`` may.
    """
    with contextlib.ExitStack() as stack:

        def start(registry: str | Sequence[Document], **options: Any) -> GatewayProcess:
            return stack.enter_context(GatewayProcess(registry, **options))

        yield start


@pytest.fixture
def gateway(upstream: ScriptedUpstream, start_gateway: StartGateway) -> GatewayProcess:
    """A gateway of this test's own with the scenario ``chat`` on ``upstream``."""
    key = new_key()
    return start_gateway(openai_registry(upstream.url, key), key=key)


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    """The upstream of ``shared_gateway``; reached through the ``shared_pair`` fixture only."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(scope="session")
def shared_gateway_process(shared_upstream: ScriptedUpstream) -> Iterator[GatewayProcess]:
    """The gateway of ``shared_pair``, one for the whole run."""
    key = new_key()
    with GatewayProcess(openai_registry(shared_upstream.url, key), key=key) as process:
        yield process


@pytest.fixture
def shared_pair(
    shared_upstream: ScriptedUpstream, shared_gateway_process: GatewayProcess
) -> Iterator[tuple[GatewayProcess, ScriptedUpstream]]:
    """A gateway and its upstream that many tests share, for tests that change no setting and no registry.

    The upstream is as new before each test: default behaviour, nothing queued, nothing recorded. The counters and
    logs of the gateway are not, so a test looks for its own request there.
    """
    shared_upstream.forget()
    yield shared_gateway_process, shared_upstream
    shared_upstream.forget()


@pytest.fixture(scope="session")
def echo_gateway() -> Iterator[GatewayProcess]:
    """A gateway on the in-process echo backend, one for the whole run; tests must not change its registry."""
    key = new_key()
    with GatewayProcess(echo_registry(key), key=key) as process:
        yield process
