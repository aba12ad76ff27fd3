"""The document of kind Backend: a model endpoint. See ``base`` for how these models behave."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from gateway.model import OUTPUT_LIMITS, Api
from gateway.registry import values
from gateway.registry.backend_anthropic import HEADERS, Anthropic
from gateway.registry.backend_auth import KEY_HEADERS, Auth
from gateway.registry.backend_bedrock import Bedrock
from gateway.registry.base import (
    Document,
    Duration,
    FieldErrors,
    FreeText,
    HeaderName,
    HeaderValue,
    Metadata,
    Money,
    Node,
    PositiveDuration,
    text_type,
)
from gateway.registry.service import ServiceReference


def _at_most_an_hour(seconds: float) -> float:
    if seconds > 3600:
        raise ValueError("must be at most 1h")
    return seconds


Url = Annotated[
    values.Url,
    PlainValidator(lambda value: values.url(value if isinstance(value, str) else "")),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"}),
]
Provider = Literal["openai", "azure", "anthropic", "bedrock", "gemini", "vertex", "echo"]
QueueWait = Annotated[PositiveDuration, AfterValidator(_at_most_an_hour), text_type(values.DURATION_PATTERN)]


def _can_be_left_out(value: str) -> str:
    if not value or not value.isprintable() or len(value) > 128:
        raise ValueError("is not a field name")
    if value.casefold() in ("model", "messages", "stream", "stream_options", "n", OUTPUT_LIMITS[0]):
        raise ValueError("is decided by the gateway and is always sent as it says")
    return value


WITH_APIS = ("openai", "azure")
"""Providers that have more than chat completions, in OpenAI's dialect."""

ApiVersion = Annotated[str, StringConstraints(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest)$")]
FileUri = Annotated[str, StringConstraints(pattern=r"^(gs|https)://[!-~]{1,1000}/$")]
UnsupportedField = Annotated[str, AfterValidator(_can_be_left_out)]


class Timeouts(Node):
    """How long an attempt may take, stage by stage."""

    connect: PositiveDuration | None = Field(default=None, description="To an open connection. Default 2s.")
    first_byte: PositiveDuration | None = Field(
        default=None, description="From the request to the first byte. Default 60s."
    )
    idle: PositiveDuration | None = Field(default=None, description="Between two bytes of the answer. Default 30s.")
    total: PositiveDuration | None = Field(default=None, description="The whole attempt. Default 9m.")


class Queue(Node):
    """Who may wait for the backend while it is full or not ready."""

    max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=100, description="Requests that wait, per replica; a further one fails at once."
    )
    wait: QueueWait | None = Field(default=None, description="How long each waits at most. Default 1m; at most 1h.")


_OF_ONE_PROVIDER: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "apiVersion": ("api_version", "azure"),
        "anthropic": ("anthropic", "anthropic"),
        "bedrock": ("bedrock", "bedrock"),
        "echo": ("echo", "echo"),
    }
)
"""Fields by their name in the document: the attribute, and the provider that has them."""


class Batch(Node):
    """How the inputs of a large call of embeddings or rerank are sent."""

    max_inputs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        description="The most inputs, or documents, that the backend takes in one call; one with more becomes several."
    )
    concurrent: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="How many of them are under way at the same time; each counts as one at the backend."
    )


class Price(Node):
    """USD per million tokens."""

    input_per_million: Money = Field(description="For input tokens that were not cached.")
    cached_input_per_million: Money | None = Field(
        default=None, description="For input tokens that the backend had cached. Default: as inputPerMillion."
    )
    cache_write_input_per_million: Money | None = Field(
        default=None, description="For input tokens that the backend wrote to its cache. Default: as inputPerMillion."
    )
    output_per_million: Money = Field(description="For output tokens.")


class Echo(Node):
    """How the echo provider answers."""

    first_token_delay: Duration | None = Field(default=None, description="Before the first token. Default: none.")
    token_delay: Duration | None = Field(default=None, description="Between two tokens. Default: none.")
    output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="How many words it answers with. Default: as many as the last user message has."
    )


class BackendSpec(Node):
    """A model endpoint."""

    provider: Provider = Field(
        description="openai: any server of OpenAI's dialect; azure: Azure OpenAI; anthropic: Anthropic Messages;"
        " bedrock: Amazon Bedrock, its Converse API; gemini: the Gemini API; vertex: Gemini on Vertex AI; echo: answers"
        " in process with the last user message."
    )
    url: Url | None = Field(
        default=None,
        description="Base URL, such as http://vllm.models.svc:8000/v1; for azure the resource's, such as"
        " https://NAME.openai.azure.com; for anthropic https://api.anthropic.com/v1; for bedrock the region's, such as"
        " https://bedrock-runtime.eu-central-1.amazonaws.com; for gemini"
        " https://generativelanguage.googleapis.com/v1beta; for vertex it ends with /publishers/google. Not for echo.",
    )
    service: ServiceReference | None = Field(
        default=None,
        description="Instead of url, in the cluster only: a Service whose ready pods are called directly, each call at"
        " the one with the fewest under way.",
    )
    model: FreeText | None = Field(default=None, description="The name sent upstream. Default: the scenario's name.")
    api_version: ApiVersion | None = Field(
        default=None,
        description="For azure: with a date, such as 2024-10-21, deployments are called at /openai/deployments/MODEL;"
        " preview or latest is sent to the v1 API. Default: the v1 API, without a version.",
    )
    auth: Auth | None = Field(default=None, description="The credential sent to the backend. Default: none.")
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=64)] = Field(
        default_factory=dict, description="Added upstream; never a credential."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long an attempt may take.")
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Calls under way per replica; a further one goes to a fallback. Default: unbounded."
    )
    queue: Queue | None = Field(
        default=None,
        description="A call waits here, instead of failing, while the backend is at maxConcurrentRequests or not ready,"
        " such as one that is scaled to zero; where fallbacks follow, it goes to them instead. Default: no call waits.",
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        default=4096,
        description="The most output tokens of an answer. A budget reserves them where the request and the scenario"
        " set no limit, and then asks the backend for no more; an echo answers with no more.",
    )
    price: Price | None = Field(
        default=None,
        description="From which cost is counted. Default: cost is not counted, and a call under a limit of cost goes to"
        " other backends.",
    )
    unsupported_fields: Annotated[list[UnsupportedField], Field(max_length=128)] = Field(
        default_factory=list,
        description="Request fields that it does not take, such as top_k, min_p, repetition_penalty, response_format:"
        " they are left out of what is sent to it. With max_tokens, output limits go to it as max_completion_tokens;"
        " with reasoning_content, reasoning of earlier answers does not go back to it.",
    )
    apis: Annotated[list[Api], Field(max_length=16)] | None = Field(
        default=None,
        description="What it has beside chat completions. Requests of callers who speak that pass to it as they are."
        " responses: OpenAI Responses; completions: the older Completions. Default: embeddings.",
    )
    batch: Batch | None = Field(
        default=None, description="How large calls of embeddings and rerank are split. Default: they are not."
    )
    file_uris: Annotated[list[FileUri], Field(max_length=64)] = Field(
        default_factory=list,
        description="For gemini and vertex: prefixes of gs:// and Google's https:// addresses that callers may name as"
        " images and documents. What is below them is read with the backend's own rights, for any caller. Default:"
        " none.",
    )
    disabled: bool = Field(default=False, description="true: gets no calls, as a target or as a fallback.")
    echo: Echo | None = Field(default=None, description="For provider echo only.")
    anthropic: Anthropic | None = Field(default=None, description="For provider anthropic only.")
    bedrock: Bedrock | None = Field(default=None, description="For provider bedrock only.")

    @model_validator(mode="before")
    @classmethod
    def _headers_once(cls, data: object) -> object:
        headers = data.get("headers") if isinstance(data, dict) else None
        if isinstance(headers, dict):
            counts = Counter(str(name).lower() for name in headers)
            twice = [(f"headers.{name[:64]}", "is set twice") for name, count in counts.items() if count > 1]
            if twice:
                raise FieldErrors(*twice)
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = list(self._provider_errors())
        auth = self.auth
        if auth is not None and auth.type == "header" and auth.name is None and self.provider not in KEY_HEADERS:
            errors.append(("auth.name", "is required with type header"))
        own = self.auth.name if self.auth is not None else None
        errors += [
            (f"headers.{name}", "is a credential; it goes to spec.auth")
            for name in self.headers
            if name == own or name in values.CREDENTIALS
        ]
        if errors:
            raise FieldErrors(*errors)
        return self

    def _provider_errors(self) -> Iterator[tuple[str, str]]:
        for name, (field, provider) in _OF_ONE_PROVIDER.items():
            if getattr(self, field) and self.provider != provider:
                yield name, f"is for provider {provider} only"
        yield from self._apis_errors()
        yield from self._google_errors()
        if self.provider == "echo":
            for field in ("url", "service", "auth", "headers", "batch"):
                if getattr(self, field):
                    yield field, "is not for provider echo, which answers in process"
            return
        if self.url is None and self.service is None:
            yield "", f"must have url, or in the cluster service, with provider {self.provider}"
        if self.url is not None and self.service is not None:
            yield "service", "is instead of url; one of the two"
        if self.provider == "azure":
            yield from self._azure_errors()
        if self.provider == "anthropic":
            for header in HEADERS.intersection(self.headers):
                yield f"headers.{header}", "goes to spec.anthropic"

    def _apis_errors(self) -> Iterator[tuple[str, str]]:
        if self.apis is not None and self.provider not in WITH_APIS:
            yield "apis", "is for providers of OpenAI's dialect"
        if self.provider == "azure" and "responses" in (self.apis or ()):
            yield "apis", "responses is for provider openai only"

    def _azure_errors(self) -> Iterator[tuple[str, str]]:
        if self.service is not None:
            yield "service", "is not for provider azure; use url"
        if self.url is not None and re.search(r"/openai(/v1)?$", self.url.path):
            yield "url", "must be that of the resource, without /openai"

    def _google_errors(self) -> Iterator[tuple[str, str]]:
        is_google = self.auth is not None and self.auth.type == "googleServiceAccount"
        if is_google and self.provider not in ("gemini", "vertex", "openai"):
            yield "auth.type", f"googleServiceAccount is not for provider {self.provider}"
        if self.file_uris and self.provider not in ("gemini", "vertex"):
            yield "fileUris", "is for the providers gemini and vertex only"
        if self.provider == "vertex" and self.url is not None and not self.url.path.endswith("/publishers/google"):
            yield (
                "url",
                (
                    "must end with /publishers/google, such as https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT"
                    "/locations/LOCATION/publishers/google"
                ),
            )


class BackendDocument(Document):
    """A model endpoint."""

    kind: Literal["Backend"] = Field(description="What the document describes.")
    metadata: Metadata = Field(description="Name of the backend.")
    spec: BackendSpec = Field(description="The endpoint and how it is called.")
