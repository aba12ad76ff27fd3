"""A gateway in front of a scripted server of everything that OpenAI's dialect has beside chats."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from openai import OpenAI
from openai.types import embedding_create_params, image_generate_params, moderation_create_params
from openai.types.audio import speech_create_params
from pydantic import TypeAdapter

from tests.support.documents import Document, api_key, backend, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess, LogLine
from tests.support.scripts import Received, Script, error_reply, json_reply, reply
from tests.support.upstream import ScriptedUpstream

APIS = ["completions", "embeddings", "moderations", "rerank", "images", "transcriptions", "translations", "speech"]
PRICE = {"inputPerMillion": "1000", "outputPerMillion": "2000"}
SOUND = bytes(range(256)) * 64

_SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "/embeddings": TypeAdapter(embedding_create_params.EmbeddingCreateParams),
    "/moderations": TypeAdapter(moderation_create_params.ModerationCreateParams),
    "/images/generations": TypeAdapter(image_generate_params.ImageGenerateParamsNonStreaming),
    "/audio/speech": TypeAdapter(speech_create_params.SpeechCreateParams),
}


def vector(text: object) -> list[float]:
    """What the server says of a text, different for each that is used here."""
    told = text if isinstance(text, str) else json.dumps(text)
    return [float(len(told)), float(sum(map(ord, told)) % 97), 0.5]


class Server:
    """Answers as https://platform.openai.com/docs/api-reference says; requests that its types do not allow are refused.

    ``seen`` has the path and decoded body of each.
    """

    def __init__(self, inputs_max: int = 1000) -> None:
        self._inputs_max = inputs_max

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        path = request.target.partition("?")[0].removeprefix("/v1").rpartition("/deployments/emb")[2]
        if path in _SCHEMAS:
            _SCHEMAS[path].validate_json(request.body, strict=True)
        answers: dict[str, Callable[[Any], Script]] = {
            "/embeddings": self._embeddings,
            "/rerank": self._rerank,
            "/moderations": lambda _: json_reply({"id": "m", "model": "omni", "results": [{"flagged": False}]}),
            "/images/generations": self._images,
            "/audio/speech": lambda _: reply(body=SOUND, headers=[("content-type", "audio/mpeg")], framing="chunked"),
        }
        return answers[path](request.json()) if path in answers else error_reply(404, f"no {path}")

    def _embeddings(self, asked: Any) -> Script:
        inputs = asked["input"]
        if isinstance(inputs, str) or isinstance(inputs[0], int):
            inputs = [inputs]
        if len(inputs) > self._inputs_max:
            return error_reply(400, "too many inputs")
        data = []
        for index, each in enumerate(inputs):
            numbers: Any = vector(each)
            if asked.get("encoding_format") == "base64":
                numbers = base64.b64encode(struct.pack("<3f", *numbers)).decode()
            data.append({"object": "embedding", "index": index, "embedding": numbers})
        tokens = 10 * len(inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_reply({"object": "list", "data": data[::-1], "model": asked["model"], "usage": usage})

    def _rerank(self, asked: Any) -> Script:
        documents = asked["documents"]
        if len(documents) > self._inputs_max:
            return error_reply(400, "too many documents")
        scored: list[dict[str, Any]] = [
            {"index": index, "relevance_score": len(str(each)) / 100, "document": {"text": each}}
            for index, each in enumerate(documents)
        ]
        scored.sort(key=lambda each: each["relevance_score"], reverse=True)
        meta = {"billed_units": {"search_units": 1, "input_tokens": float(len(documents))}}
        return json_reply({"id": "r", "results": scored[: asked.get("top_n")], "meta": meta})

    def _images(self, asked: Any) -> Script:
        image = {"b64_json": base64.b64encode(b"png").decode()}
        usage = {"input_tokens": 7, "output_tokens": 100, "total_tokens": 107, "input_tokens_details": {}}
        return json_reply({"created": 1, "data": [image] * asked.get("n", 1), "usage": usage})


class Operating:
    """A gateway with a Redis, its upstream, and the tenant's key.

    Scenarios: ``all`` (every API), ``batched`` (two inputs a call), ``azure``, ``cached``, ``chats`` (no API at all),
    ``ruled`` (with parameters), ``safe`` (another backend, then that of ``all``), ``mixed`` (without an API, then
    that of ``all``), ``prompted``, ``hasty`` (a second until the first byte), ``echo``.
    """

    def __init__(self, gateway: GatewayProcess, upstream: ScriptedUpstream, other: ScriptedUpstream) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.other = other

    def client(self, request_id: str = "", key: str = "") -> OpenAI:
        """The official client."""
        headers = {"x-request-id": request_id} if request_id else {}
        return OpenAI(
            base_url=f"{self.gateway.base_url}/v1",
            api_key=key or self.gateway.key,
            max_retries=0,
            timeout=5.0,
            default_headers=headers,
        )

    def log_of(self, request_id: str) -> LogLine:
        """The log line of a request."""
        return self.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)

    def asked(self) -> list[Any]:
        """The bodies that the upstream got."""
        return [request.json() for request in self.upstream.requests]


def documents(url: str, other: str, key: str, limits: Mapping[str, list[Document]]) -> list[Document]:
    """The registry of ``Operating``; tenants beside acme are named by ``limits``, each with a key of its name."""
    everything = {"model": "upstream-model", "apis": APIS, "price": PRICE, "maxOutputTokens": 1000}
    azure = {"provider": "azure", "url": url, "model": "emb", "apiVersion": "2024-10-21"}
    return [
        backend("all", f"{url}/v1", **everything),
        backend("other", f"{other}/v1", **everything),
        backend("batched", f"{url}/v1", **everything, batch={"maxInputs": 2, "concurrent": 2}),
        backend("bare", f"{url}/v1", apis=[]),
        document("Backend", "azure", azure),
        document("Backend", "echo", {"provider": "echo"}),
        backend("hasty", f"{url}/v1", **everything, timeouts={"firstByte": "1s"}),
        scenario("hasty", "hasty"),
        scenario("all", "all"),
        scenario("batched", "batched"),
        scenario("azure", "azure"),
        scenario("cached", "all", cache={"mode": "exact"}),
        scenario("chats", "bare"),
        scenario("mixed", "bare", "all"),
        scenario(
            "ruled", "all", parameters={"overrides": {"user": "us"}, "deny": ["dimensions"], "defaults": {"x": 1}}
        ),
        scenario("safe", "other", "all"),
        scenario("echo", "echo"),
        document("Prompt", "hello.v1", {"inputVars": [], "template": "Hello"}),
        scenario("prompted", "all", prompt="hello.v1"),
        tenant("acme"),
        api_key("acme-key", key),
        *(
            each
            for name in limits
            for each in (tenant(name, limits=limits[name]), api_key(name, f"key-of-tenant-{name}", name))
        ),
    ]


@contextmanager
def operating(**limits: list[Document]) -> Iterator[Operating]:
    """It, running."""
    key = new_key()
    with ScriptedUpstream(Server(4)) as upstream, ScriptedUpstream() as other:
        registry = documents(upstream.url, other.url, key, limits)
        with GatewayProcess(registry, key=key, env={"LLM_GATEWAY_REDIS_URL": "embedded"}) as gateway:
            yield Operating(gateway, upstream, other)
