"""Scenarios as callers meet them: by ``/v1/scenarios``, by the official client, and by the simple endpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

from tests.support.client import Response
from tests.support.documents import Document, api_key, backend, document, echo_backend, new_key, scenario, tenant
from tests.support.gateway import ROOT, GatewayProcess
from tests.support.openai_api import Api, text_of
from tests.support.upstream import ScriptedUpstream

NARROW, GUEST = new_key(), new_key()


def documents(url: str, key: str) -> list[Document]:
    """Scenarios with prompts of every kind, and callers who may use some of them."""
    prompt = {"inputVars": ["tone", "input"], "template": "In a {tone} tone: {input}"}
    return [
        backend("main", f"{url}/v1", model="m", unsupportedFields=["top_k"]),
        echo_backend("echo"),
        document("Prompt", "rewrite.v1", prompt),
        document("Prompt", "kind.v1", {"template": "Be kind to {{all}}."}),
        document("Prompt", "polish.v1", {"inputVars": ["input"], "template": "Polish this: {input}"}),
        scenario("rewrite", "main", prompt="rewrite.v1", description="Rewrites a text", aliases=["re/write"]),
        scenario("kind", "main", prompt="kind.v1", parameters={"deny": ["tools", "n"], "checkSampling": True}),
        scenario("polish", "echo", prompt="polish.v1"),
        scenario("plain", "echo"),
        scenario("off", "echo", disabled=True),
        scenario("private", "echo", access={"tenants": ["acme"]}),
        tenant("acme", limits=[{"unit": "requests", "per": "minute", "amount": 10_000}]),
        tenant("guests"),
        api_key("acme-key", key),
        api_key("narrow-key", NARROW, scenarios=["rewrite"]),
        api_key("guest-key", GUEST, "guests"),
    ]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """The backend of these scenarios."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(scope="module")
def process(upstream: ScriptedUpstream) -> Iterator[GatewayProcess]:
    """The gateway of these scenarios."""
    key = new_key()
    with GatewayProcess(documents(upstream.url, key), key=key) as running:
        yield running


@pytest.fixture
def gateway(process: GatewayProcess, upstream: ScriptedUpstream) -> GatewayProcess:
    """The gateway, its upstream as new."""
    upstream.forget()
    return process


def call(gateway: GatewayProcess, path: str, body: Any = None, key: str | None = None, **options: Any) -> Response:
    """One request."""
    with gateway.client() as client:
        return client.request(path, body, key=key or gateway.key, **options)


def sent(upstream: ScriptedUpstream) -> dict[str, Any]:
    """The body of the only request that the backend has had."""
    [request] = upstream.requests
    body: dict[str, Any] = request.json()
    return body


def test_a_scenario_is_called_with_its_variables(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """Variables in, completion out: limits, headers, log and what a backend is sent are those of a chat call."""
    body = {"variables": {"tone": "{input} kind"}, "input": "Go away", "temperature": 0.5, "top_k": 5}
    answer = call(gateway, "/v1/scenarios/rewrite", body)
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Hello from upstream"
    assert answer.header("x-llm-gateway-scenario") == "rewrite"
    assert answer.header("x-llm-gateway-degraded") == "limits"  # which were asked, and there is no Redis here
    assert sent(upstream) == {
        "model": "m",
        "messages": [{"role": "user", "content": "In a {input} kind tone: Go away"}],
        "temperature": 0.5,
    }
    request_id = answer.header("x-request-id")
    line = gateway.wait_for_log(lambda found: found.get("request_id") == request_id)
    assert (line["scenario"], line["tenant"], line["status"]) == ("rewrite", "acme", 200)


def test_a_scenario_streams(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """With ``stream`` the answer is the backend's events as they come, ended by [DONE], usage only if asked for."""
    body = {"variables": {"tone": "kind", "input": "Go"}, "stream": True}
    answer = call(gateway, "/v1/scenarios/re/write", body)
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    events = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello from upstream"
    assert sent(upstream)["messages"] == [{"role": "user", "content": "In a kind tone: Go"}]
    usage = call(gateway, "/v1/scenarios/rewrite", body | {"stream_options": {"include_usage": True}})
    assert b'"usage":{' in usage.body.replace(b" ", b"")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_official_client_gives_variables(gateway: GatewayProcess, upstream: ScriptedUpstream, kind: Any) -> None:
    """By ``extra_body``, as prompt_variables or in the metadata, whole and streamed; neither goes upstream."""
    api = Api(kind, gateway)
    messages = [{"role": "user", "content": "Go away"}]
    asked: dict[str, Any] = {"model": "rewrite", "messages": messages}
    whole = api.complete(**asked, extra_body={"prompt_variables": {"tone": "kind"}})
    assert whole.choices[0].message.content == "Hello from upstream"
    chunks = api.stream(**asked, extra_body={"metadata": {"variables": {"tone": "kind"}, "run": "7"}})
    assert text_of(chunks) == "Hello from upstream"
    first, second = (request.json() for request in upstream.requests)
    assert first == {"model": "m", "messages": [{"role": "user", "content": "In a kind tone: Go away"}]}
    assert second["messages"] == first["messages"]
    assert second["metadata"] == {"run": "7"}


def test_the_official_client_calls_a_scenario(gateway: GatewayProcess) -> None:
    """The answer of a call by name is a chat completion, which the client's own request methods read."""
    with OpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.key, max_retries=0) as client:
        answer = client.post("/scenarios/polish", cast_to=object, body={"input": "a rough text"})
    assert answer["choices"][0]["message"]["content"] == "Polish this: a rough text"  # type: ignore[index]


def test_what_a_caller_may_use_is_listed(gateway: GatewayProcess) -> None:
    """Name, description, aliases and the JSON Schema of the variables, of what this key may call and nothing else."""
    cards = {card["name"]: card for card in call(gateway, "/v1/scenarios").json()["data"]}
    assert set(cards) == {"rewrite", "kind", "polish", "plain", "private"}
    card = cards["rewrite"]
    assert (card["description"], card["aliases"]) == ("Rewrites a text", ["re/write"])
    assert card["variables"] == {
        "type": "object",
        "properties": {"tone": {"type": "string"}, "input": {"type": "string"}},
        "required": ["tone"],
        "additionalProperties": False,
    }
    assert cards["plain"]["variables"]["properties"] == {}
    assert [one["name"] for one in call(gateway, "/v1/scenarios", key=NARROW).json()["data"]] == ["rewrite"]
    assert "private" not in {one["name"] for one in call(gateway, "/v1/scenarios", key=GUEST).json()["data"]}
    assert call(gateway, "/v1/scenarios/re/write").json() == card


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("rewrite", {"input": "x"}, (400, "missing_field", "variables.tone")),
        ("rewrite", {"variables": {"tone": "x"}}, (400, "missing_field", "variables.input")),
        ("rewrite", {"variables": {"tone": "x", "b": "y"}}, (400, "unsupported_field", "variables.b")),
        ("rewrite", {"model": "kind"}, (400, "unsupported_field", "model")),
        ("kind", {"input": "x", "TOOLS": []}, (400, "unsupported_field", "TOOLS")),
        ("kind", {"input": "x", "n": 2}, (400, "unsupported_field", "n")),
        ("kind", {"input": "x", "temperature": 3}, (400, "invalid_value", "temperature")),
        ("plain", {}, (400, "missing_field", "input")),
        ("plain", b"", (400, "invalid_json", None)),
        ("plain", b'{"input":"x","input":"y"}', (400, "repeated_field", "input")),
        ("off", {"input": "x"}, (404, "model_not_found", "model")),
        ("nope", {"input": "x"}, (404, "model_not_found", "model")),
    ],
)
def test_wrong_calls(
    gateway: GatewayProcess, upstream: ScriptedUpstream, path: str, body: Any, expected: tuple[int, str, str | None]
) -> None:
    """What is wrong is told in the envelope, by the name it has there; no backend is asked."""
    answer = call(gateway, f"/v1/scenarios/{path}", body)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == expected
    assert not upstream.requests


def test_who_may_not_call(gateway: GatewayProcess) -> None:
    """Keys count as everywhere: a wrong one is 401, another's scenario is not there, and methods are told."""
    assert call(gateway, "/v1/scenarios/plain", {"input": "x"}, key=new_key()).status == 401
    assert call(gateway, "/v1/scenarios", key=new_key()).status == 401
    assert (
        call(gateway, "/v1/scenarios/private", {"input": "x"}, key=GUEST).json()["error"]["code"] == "model_not_found"
    )
    assert call(gateway, "/v1/scenarios/private", key=GUEST).status == 404
    wrong = call(gateway, "/v1/scenarios/plain", method="DELETE")
    assert (wrong.status, wrong.header("allow")) == (405, "GET, HEAD, POST")
    assert call(gateway, "/v1/scenarios", {"input": "x"}).status == 405


@pytest.mark.parametrize(("path", "field"), [("/generate", "generated_text"), ("/chat/completion", "result")])
def test_the_simple_endpoints_fill_the_input(gateway: GatewayProcess, path: str, field: str) -> None:
    """Their prompt is what the user says: a scenario whose prompt takes the input renders it."""
    answer = call(gateway, path, {"model": "polish", "prompt": "a {rough} text"})
    assert answer.json()[field] == "Polish this: a {rough} text"
    assert call(gateway, path, {"model": "kind", "prompt": "x"}).json()[field] == "Hello from upstream"
    refused = call(gateway, path, {"model": "rewrite", "prompt": "x"}).json()["error"]
    assert (refused["code"], refused["param"]) == ("missing_field", "prompt_variables.tone")


def test_the_documentation_describes_the_endpoints(gateway: GatewayProcess) -> None:
    """Body and answers of a call, and the list, are typed in the OpenAPI document."""
    described = call(gateway, "/openapi.json").json()
    posted = described["paths"]["/v1/scenarios/{name}"]["post"]
    assert posted["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ScenarioRequest")
    assert set(posted["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    schemas = described["components"]["schemas"]
    assert {"variables", "input", "stream", "temperature", "top_k"} <= schemas["ScenarioRequest"]["properties"].keys()
    assert {"name", "description", "variables"} <= schemas["ScenarioCard"]["properties"].keys()


def test_the_example_registry_answers(tmp_path: Path) -> None:
    """The bare form of a prompt works as it is written there: prompts/summarize/v1.yaml, then its scenario."""
    folder, key = tmp_path / "registry", new_key()
    shutil.copytree(ROOT / "registry", folder, ignore=shutil.ignore_patterns("local"))
    (folder / "key.yaml").write_text(yaml.safe_dump(api_key("demo-key", key, "demo")))
    bare = yaml.safe_load((folder / "prompts" / "summarize" / "v1.yaml").read_text())
    assert set(bare) == {"version", "input_vars", "template"}
    env = {"LLM_GATEWAY_REGISTRY": str(folder), "LLM_GATEWAY_REDIS_URL": "embedded"}
    with GatewayProcess([], key=key, env=env) as gateway:
        answer = call(gateway, "/v1/scenarios/summarize", {"variables": {"context": "a long story"}})
        assert answer.status == 200
        said = answer.json()["choices"][0]["message"]["content"]
        assert said == "Summarise the following in three sentences: a long story"
        named = call(gateway, "/v1/scenarios/rewrite", {"variables": {"tone": "kind"}, "input": "Go away"})
        asked = {"model": "rewrite", "messages": [{"role": "user", "content": "Go away"}]}
        as_chat = call(gateway, "/v1/chat/completions", asked | {"prompt_variables": {"tone": "kind"}})
        texts = {answer.json()["choices"][0]["message"]["content"] for answer in (named, as_chat)}
        assert texts == {"Rewrite the following in a kind tone: Go away"}
        assert call(gateway, "/generate", {"model": "echo", "prompt": "x"}).json() == {"generated_text": "x"}
