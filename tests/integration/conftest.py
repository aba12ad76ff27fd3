"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.claude import ClaudeGateway, claude_gateway
from tests.support.gateway import GatewayProcess
from tests.support.lane import Lane, lane
from tests.support.responses_api import KEY, registry
from tests.support.upstream import ScriptedUpstream


@pytest.fixture(scope="session")
def shared_lane() -> Iterator[Lane]:
    """The lane of ``faulty``; reached through that fixture only."""
    with lane() as found:
        yield found


@pytest.fixture
def faulty(shared_lane: Lane) -> Iterator[Lane]:
    """A gateway before upstreams that go wrong; nothing may be left of a test afterwards."""
    shared_lane.forget()
    yield shared_lane
    shared_lane.assert_clean()
    shared_lane.forget()


@pytest.fixture(scope="session")
def responses_pair() -> Iterator[tuple[GatewayProcess, ScriptedUpstream]]:
    """A gateway whose callers speak Responses, and the backend of all its scenarios."""
    env = {"LLM_GATEWAY_REDIS_URL": "embedded"}
    with (
        ScriptedUpstream() as upstream,
        GatewayProcess(registry(upstream.url + "/v1"), key=KEY, env=env) as gateway,
    ):
        yield gateway, upstream


@pytest.fixture(scope="session")
def shared_claude() -> Iterator[ClaudeGateway]:
    """What ``claude`` is; reached through that fixture only."""
    with claude_gateway() as found:
        yield found


@pytest.fixture
def claude(shared_claude: ClaudeGateway) -> Iterator[ClaudeGateway]:
    """A gateway before the scripted Anthropic; nothing may be sent that Anthropic would not take."""
    shared_claude.forget()
    yield shared_claude
    assert shared_claude.answers.violations == []
