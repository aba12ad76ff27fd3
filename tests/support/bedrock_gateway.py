"""A gateway in front of a scripted Bedrock, with what its tests ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support.bedrock import REGION, Bedrock
from tests.support.documents import Document, api_key, document, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.upstream import ScriptedUpstream

CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3d4e5f6"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


class Running(NamedTuple):
    """What runs for all tests."""

    gateway: GatewayProcess
    upstream: ScriptedUpstream
    bedrock: Bedrock


def bedrock_backend(name: str, url: str, **spec: Any) -> Document:
    """A model, signed for with a key that is temporary."""
    auth = {
        "type": "aws",
        "region": REGION,
        "accessKeyId": {"env": "LLM_GATEWAY_SECRET_ID"},
        "secretAccessKey": {"file": "aws-secret"},
        "sessionToken": {"env": "LLM_GATEWAY_SECRET_TOKEN"},
    }
    return document("Backend", name, {"provider": "bedrock", "url": url, "model": CLAUDE, "auth": auth} | spec)


@contextlib.contextmanager
def serving() -> Iterator[Running]:
    """Scenarios: ``claude``; ``profile`` with a bearer key and an ARN; ``lenient``; ``spare`` with a fallback."""
    key = new_key()
    env = {
        "LLM_GATEWAY_SECRET_ID": "AKIDEXAMPLE",
        "LLM_GATEWAY_SECRET_TOKEN": "token/+=",
        "LLM_GATEWAY_SECRET_B": "abc",
    }
    bedrock = Bedrock({"AKIDEXAMPLE": ("wJalrXUtnFEMI/K7MDENG", "token/+=")}, bearer="abc")
    bearer = {"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_B"}}
    with ScriptedUpstream() as upstream:
        documents = [
            bedrock_backend("claude", upstream.url, bedrock={"additionalModelRequestFields": ["top_k"]}),
            bedrock_backend("profile", upstream.url, model=PROFILE, auth=bearer),
            echo_backend("echo"),
            scenario("claude", "claude"),
            scenario("profile", "profile"),
            scenario("lenient", "claude", lenient=True),
            scenario("spare", "claude", "echo"),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        secrets = {"aws-secret": b"wJalrXUtnFEMI/K7MDENG\n"}
        with GatewayProcess(documents, key=key, env=env, secrets=secrets) as gateway:
            yield Running(gateway, upstream, bedrock)
