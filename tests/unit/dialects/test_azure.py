"""Azure OpenAI is called at its deployments or at the v1 API; what is said there passes as it is."""

from __future__ import annotations

import pytest

from gateway.dialects.azure import AzureCall, endpoint_path
from gateway.dialects.openai.request import read_chat_request
from gateway.model import Backend, Origin

BODY = b'{"model":"chat","messages":[{"role":"user","content":"hi"}],"new_field":{"a":1}}'


def backend(version: str | None, model: str | None = "gpt-4o") -> Backend:
    """A resource."""
    origin = Origin(scheme="https", host="r.openai.azure.com", port=443)
    return Backend(name="a", provider="azure", origin=origin, model=model, api_version=version)


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("2024-10-21", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"),
        ("2025-04-01-preview", "/openai/deployments/gpt-4o/chat/completions?api-version=2025-04-01-preview"),
        ("preview", "/openai/v1/chat/completions?api-version=preview"),
        (None, "/openai/v1/chat/completions"),
    ],
)
def test_the_version_decides_the_address(version: str | None, path: str) -> None:
    """A date means deployments; anything else the v1 API."""
    call = AzureCall(read_chat_request(BODY, 10), backend(version))
    assert call.outgoing.path == path
    assert call.outgoing.body == BODY.replace(b'"chat"', b'"gpt-4o"')


def test_a_deployment_is_one_segment_of_the_path() -> None:
    """Whatever its name holds, it leads nowhere else; without one it is the scenario's."""
    dated = backend("2024-10-21", "../admin?x=1#y")
    assert endpoint_path(dated, "m", "/e") == "/openai/deployments/..%2Fadmin%3Fx%3D1%23y/e?api-version=2024-10-21"
    assert endpoint_path(backend("2024-10-21", None), "chat", "/e").startswith("/openai/deployments/chat/e")


def test_answers_pass() -> None:
    """Refusals, answers and events are told as they came, and counted."""
    call = AzureCall(read_chat_request(BODY, 10), backend(None))
    refusal = b'{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}'
    assert call.refusal(400, refusal) == refusal
    body = b'{"choices":[],"prompt_filter_results":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    told, facts = call.whole(body)
    assert told == body
    assert facts.usage is not None
    assert (facts.usage.input_tokens, facts.usage.output_tokens) == (3, 4)
    assert call.translator(1000) is None
