"""The endpoints around chat: the simple ones, models, wrong paths and methods, CORS, and the documentation's truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Response
from tests.support.scripts import error_reply, json_reply, reply
from tests.support.surface import Surface, chat_body, surface

CHAT, GENERATE, SIMPLE, MODELS = "/v1/chat/completions", "/generate", "/chat/completion", "/v1/models"
OPERATIONS = ("embeddings", "moderations", "rerank", "images/generations", "audio/speech", "audio/transcriptions",
              "audio/translations")  # fmt: skip
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def default_process() -> Iterator[Surface]:
    """A gateway with default settings."""
    with surface() as running:
        yield running


@pytest.fixture(scope="module")
def configured_process() -> Iterator[Surface]:
    """A gateway with a default scenario, CORS for one origin, backends named, a Redis and no documentation."""
    settings = {"default_scenario": "echo", "cors_allow_origins": ORIGIN, "expose_backend": "true", "docs": "false",
                "redis_url": "embedded"}  # fmt: skip
    with surface(**settings) as running:
        yield running


@pytest.fixture
def plain(default_process: Surface) -> Surface:
    """The default gateway, its upstream as new."""
    default_process.upstream.forget()
    return default_process


@pytest.fixture
def configured(configured_process: Surface) -> Surface:
    """The configured gateway, its upstream as new."""
    configured_process.upstream.forget()
    return configured_process


def call(place: Surface, path: str, body: Any = None, method: str | None = None, **headers: str) -> Response:
    """One request with the main key."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with place.gateway.client() as client:
        return client.request(path, body, key=place.keys.main, method=method, headers=named)


# -- the simple endpoints ----------------------------------------------------------------------------------------


def test_generate(plain: Surface) -> None:
    """``/generate`` makes a chat call of its prompt, length and temperature and returns the text alone."""
    answer = call(plain, GENERATE, {"model": "chat", "prompt": "Once", "max_length": 9, "temperature": 0.5})
    assert (answer.status, answer.json()) == (200, {"generated_text": "Hello from upstream"})
    assert answer.header("x-llm-gateway-scenario") == "chat"
    [request] = plain.upstream.requests
    assert request.json() == {
        "model": "upstream-model",
        "messages": [{"role": "user", "content": "Once"}],
        "max_tokens": 9,
        "temperature": 0.5,
    }


def test_simple_chat(plain: Surface) -> None:
    """``/chat/completion`` answers a prompt and says which scenario did."""
    answer = call(plain, SIMPLE, {"model": "gpt-4o", "prompt": "Hi"})
    assert (answer.status, answer.json()) == (200, {"result": "Hello from upstream", "model": "chat"})
    assert answer.header("x-llm-gateway-backend") is None
    assert plain.upstream.requests[0].json()["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("path", [GENERATE, SIMPLE])
def test_default_scenario(plain: Surface, configured: Surface, path: str) -> None:
    """Without a model the default scenario of the settings answers; without one that is a missing field."""
    answer = call(configured, path, {"prompt": "good day"})
    assert answer.status == 200
    assert "good day" in answer.json().values()
    assert answer.header("x-llm-gateway-scenario") == "echo"
    assert answer.header("x-llm-gateway-backend") == "echo"
    refused = call(plain, path, {"prompt": "good day"})
    assert refused.status == 400
    assert (refused.json()["error"]["code"], refused.json()["error"]["param"]) == ("missing_field", "model")


def test_default_scenario_is_for_the_simple_endpoints_only(configured: Surface) -> None:
    """A chat completion has to name its model whatever the settings say."""
    body = {name: value for name, value in chat_body().items() if name != "model"}
    assert call(configured, CHAT, body).json()["error"]["code"] == "missing_field"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "prompt"),
        ({"prompt": None}, "invalid_type", "prompt"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": ["x"]}, "invalid_type", "prompt"),
        ({"prompt": "x", "model": ""}, "invalid_value", "model"),
        ({"prompt": "x", "models": "chat"}, "unsupported_field", "models"),
        ({"prompt": "x", "y" * 1000: "chat"}, "unsupported_field", "y" * 256),
        (b'{"prompt":"x","prompt":"x"}', "repeated_field", "prompt"),
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", None),
        (b'{"prompt":' + b"1" * 5000 + b"}", "invalid_json", None),
        (b'{"prompt":"\\ud800"}', "invalid_json", None),
    ],
)
@pytest.mark.parametrize("path", [GENERATE, SIMPLE])
def test_wrong_simple_request(plain: Surface, path: str, body: Any, code: str, param: str | None) -> None:
    """A wrong request of a simple endpoint is a 400 in the envelope that names the field."""
    answer = call(plain, path, body)
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert not plain.upstream.requests


@pytest.mark.parametrize("path", [GENERATE, SIMPLE])
def test_failures_of_simple_endpoints(plain: Surface, path: str) -> None:
    """Unknown models, refusals and failures are told as on the chat endpoint."""
    body = {"model": "chat", "prompt": "x"}
    assert call(plain, path, body | {"model": "nope"}).json()["error"]["code"] == "model_not_found"
    plain.upstream.enqueue(
        reply(422, body=b"no, thanks", headers=[("content-type", "text/x-refusal")]),
        error_reply(401, "operators only"),
        error_reply(503, headers=[("retry-after", "9")]),
        json_reply({"choices": "none"}),
        reply(body=b'{"choices":[{"message":{"content":"\xff\xfe"}}]}'),
        json_reply({"choices": [{"message": {"content": None}}]}),
        json_reply({"choices": []}),
    )
    refused = call(plain, path, body)
    assert (refused.status, refused.body) == (422, b"no, thanks")
    assert refused.header("content-type") == "text/x-refusal"
    assert refused.header("x-llm-gateway-scenario") == "chat"
    assert call(plain, path, body).status == 502
    assert call(plain, path, body).header("retry-after") == "9"
    for _ in range(2):
        assert call(plain, path, body).json()["error"]["code"] == "upstream_failed"
    for _ in range(2):
        assert "" in call(plain, path, body).json().values()
    plain.gateway.assert_nothing_in_flight()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_length": "5"}, "invalid_type"),
        ({"max_length": 5.0}, "invalid_type"),
        ({"max_length": True}, "invalid_type"),
        ({"max_length": 0}, "invalid_value"),
        ({"max_length": 10**30}, "invalid_value"),
        ({"temperature": "1"}, "invalid_type"),
        ({"temperature": 2.1}, "invalid_value"),
        ({"temperature": -1}, "invalid_value"),
    ],
)
def test_wrong_option_of_generate(plain: Surface, change: dict[str, Any], code: str) -> None:
    """The options of ``/generate`` are numbers within their bounds, never text that looks like one."""
    error = call(plain, GENERATE, {"model": "chat", "prompt": "x"} | change).json()["error"]
    assert (error["code"], error["param"]) == (code, next(iter(change)))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
@pytest.mark.parametrize("path", [CHAT, GENERATE, SIMPLE])
def test_content_type_does_not_matter(plain: Surface, path: str, kind: str) -> None:
    """A body is read as JSON whatever its type says: `curl -d` sends a form's."""
    body = json.dumps(chat_body() if path == CHAT else {"model": "chat", "prompt": "x"}).encode()
    assert call(plain, path, body, content_type=kind).status == 200


# -- paths and methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/edits", "/v1/models/", "/v1//models", "/%2e%2e/x", "*", "/metrics"])
def test_unknown_path(plain: Surface, path: str, method: str) -> None:
    """An unknown path is a 404 in the envelope, with or without a body; nothing redirects."""
    for body in (None, b"{not json"):
        with plain.gateway.client() as client:
            answer = client.request(path, body, method=method)
        if method == "BREW":  # no method that the parser knows
            assert answer.status == 400
        else:
            assert (answer.status, answer.json()["error"]["code"]) == (404, "unknown_url")
            assert answer.header("x-request-id")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (CHAT, {"POST"}),
        (GENERATE, {"POST"}),
        (SIMPLE, {"POST"}),
        (MODELS, {"GET"}),
        (f"{MODELS}/chat", {"GET"}),
        ("/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_wrong_method(plain: Surface, path: str, allowed: set[str]) -> None:
    """A known path with another method is a 405 that lists what is allowed (RFC 9110, section 15.5.6)."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
        answer = call(plain, path, method=method)
        assert (answer.status, answer.json()["error"]["code"]) == (405, "method_not_allowed")
        assert set((answer.header("allow") or "").split(", ")) == allowed


@pytest.mark.parametrize(("path", "status"), [(MODELS, 200), ("/docs", 200), ("/nope", 404), (CHAT, 405)])
def test_head(plain: Surface, path: str, status: int) -> None:
    """HEAD gives the head that GET would, without a body, and keeps the connection in step."""
    with plain.gateway.client() as client:
        client.send(f"HEAD {path} HTTP/1.1\r\nhost: g\r\nx-api-key: {plain.keys.main}\r\n\r\n".encode())
        head = client.read_head()
        assert head.status == status
        assert client.request(MODELS, key=plain.keys.main).status == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [("chat", 200), ("gpt-4o", 200), ("nope", 404), ("no/such", 404), ("no%2Fsuch", 404), ("%FF", 404), ("", 404)],
)
def test_model(plain: Surface, name: str, status: int) -> None:
    """One model is told in the form of OpenAI's; a name that this key may not use does not exist."""
    answer = call(plain, f"{MODELS}/{name}")
    assert answer.status == status
    if status == 200:
        assert answer.json() in call(plain, MODELS).json()["data"]
        assert answer.json()["id"] == name
    else:
        assert answer.json()["error"]["code"] == ("model_not_found" if name else "unknown_url")
    if name:
        with plain.gateway.client() as client:
            assert client.request(f"{MODELS}/{name}").status == 401


def test_models(plain: Surface) -> None:
    """The list of models has the form of OpenAI's."""
    answer = call(plain, MODELS)
    cards = answer.json()["data"]
    assert answer.json()["object"] == "list"
    assert {card["object"] for card in cards} == {"model"}
    assert all(isinstance(card["created"], int) and card["created"] > 1_700_000_000 for card in cards)
    with plain.gateway.client() as client:
        assert client.request(MODELS).status == 401


# -- CORS --------------------------------------------------------------------------------------------------------


def preflight(place: Surface, origin: str) -> Response:
    """What a browser asks before a page of ``origin`` may call."""
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    with place.gateway.client() as client:
        return client.request(CHAT, method="OPTIONS", headers=headers)


def test_cors_is_off_by_default(plain: Surface) -> None:
    """By default no web page may call: no answer carries a CORS header."""
    for answer in (preflight(plain, ORIGIN), call(plain, CHAT, chat_body(), origin=ORIGIN)):
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    assert preflight(plain, ORIGIN).status == 405


def test_cors_for_the_origins_of_the_setting(configured: Surface) -> None:
    """Pages of the origins that are set may call and read our headers, of errors and streams too; others may not."""
    allowed = preflight(configured, ORIGIN)
    assert allowed.status == 200
    assert allowed.header("access-control-allow-origin") == ORIGIN
    assert "authorization" in (allowed.header("access-control-allow-headers") or "")
    assert preflight(configured, "https://evil.example").header("access-control-allow-origin") is None
    for body in (chat_body(), chat_body(stream=True), chat_body("nope"), b"{"):
        answer = call(configured, CHAT, body, origin=ORIGIN)
        assert answer.header("access-control-allow-origin") == ORIGIN
        exposed = (answer.header("access-control-expose-headers") or "").split(", ")
        assert {"x-request-id", "x-llm-gateway-scenario", "x-llm-gateway-cache", "age"} <= {*exposed}
        assert {"request-id", "anthropic-ratelimit-tokens-remaining"} <= {*exposed}
        foreign = call(configured, CHAT, body, origin="https://evil.example")
        assert foreign.header("access-control-allow-origin") is None


# -- documentation -----------------------------------------------------------------------------------------------


def test_documentation_can_be_turned_off(configured: Surface) -> None:
    """With the setting off there is no page and no description."""
    for path in ("/docs", "/openapi.json", "/redoc", "/docs/static/swagger-ui.css", "/docs/oauth2-redirect"):
        assert call(configured, path).status == 404


def test_description(plain: Surface) -> None:
    """The description names every endpoint with typed bodies, the three credentials, and no error that never comes."""
    document = call(plain, "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    models = {CHAT, MODELS, f"{MODELS}/{{model}}", GENERATE, SIMPLE, "/v1/scenarios", "/v1/scenarios/{name}"}
    others = {f"/v1/{name}" for name in ("usage", "responses", "responses/input_tokens", "completions", *OPERATIONS)}
    others |= {"/v1/messages", "/v1/messages/count_tokens"}
    assert models | others <= set(document["paths"])
    for item in document["paths"].values():
        for operation in item.values():
            assert {"405", "431"} <= set(operation["responses"])
    stream = document["paths"][CHAT]["post"]["responses"]["200"]["content"]["text/event-stream"]
    chunk = document["components"]["schemas"]["ChatCompletionChunk"]
    assert "ChatCompletionChunk" in str(stream)
    assert chunk["properties"]["choices"]["items"]["$ref"] == "#/components/schemas/ChunkChoice"
    assert "delta" in document["components"]["schemas"]["ChunkChoice"]["properties"]
    schemes = document["components"]["securitySchemes"]
    assert {scheme.get("name", "authorization") for scheme in schemes.values()} == {
        "authorization",
        "x-api-key",
        "api-key",
    }
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert operation["description"]
            assert len(operation["security"]) == 3
            answer = operation["responses"]["200"]["content"]
            assert "audio/mpeg" in answer or "$ref" in str(answer["application/json"]["schema"])
            asked = str(operation.get("requestBody", "$ref"))
            assert "$ref" in asked or "multipart/form-data" in asked


_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,missing_required_header,unsupported_method,allow_header_conformance,ignored_auth"
)


def test_description_is_true(configured_process: Surface, default_process: Surface, tmp_path: Path) -> None:
    """Whatever the description allows and does not allow, no generated request gets an answer that it does not tell of.

    What is said of a field's value is advice for chat completions, which the backend judges, so whether a request is
    refused is not judged here.
    """
    document = tmp_path / "openapi.json"
    document.write_text(call(default_process, "/openapi.json").body.decode().replace('"support-chat"', '"echo"'))
    run = subprocess.run(
        [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", str(document),
            "--url", configured_process.gateway.base_url, "--header", f"x-api-key: {configured_process.keys.main}",
            "--checks", _CHECKS, "--max-examples", "15", "--generation-deterministic", "--no-color",
            "--warnings", "off",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    tested = re.search(r"Tested: (\d+)", run.stdout)
    assert tested is not None
    assert int(tested[1]) >= 19
    configured_process.gateway.assert_nothing_in_flight()
