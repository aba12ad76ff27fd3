"""The documents of the registry as typed models: what each kind may hold, checked on its own.

One model per kind, strict and closed: an unknown key, a wrong JSON type or a null is an error that names the field.
What a document refers to is checked later, in ``compile``. The models are also the source of the JSON Schemas.
Reasons never repeat a value that might be a secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from gateway.model import IPNetwork
from gateway.registry import template, values

API_VERSION = "llmgateway.dev/v1alpha1"
OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")
"""The two names of a request's output limit: the newer one and the one that more servers know."""

Kind = Literal["Backend", "Scenario", "Prompt", "Tenant", "ApiKey"]


class FieldErrors(ValueError):
    """Reasons by field, the fields relative to the model that raises; an empty field is the model itself."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(reason for _, reason in errors))
        self.errors = errors


def _text_type(pattern: str, **extra: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, **extra})


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


def _not_supported(value: object) -> object:
    if isinstance(value, str) and value in ("azure", "anthropic", "gemini", "vertex", "bedrock"):
        raise ValueError(f"`{value}` is not supported by this version; supported are openai and echo")
    return value


def _expected_secret_env(value: str) -> str:
    if not re.fullmatch(values.SECRET_ENV_PATTERN[1:-1], value):
        raise ValueError("must be the name of a variable: LLM_GATEWAY_SECRET_ and then A-Z, 0-9 or _")
    return value


def _expected_sha256(value: str) -> str:
    if not re.fullmatch(values.SHA256_PATTERN[1:-1], value):
        raise ValueError("must be the 64 hexadecimal digits of a SHA-256")
    return value.lower()


def _variable(value: str) -> str:
    if not re.fullmatch(template.VARIABLE_PATTERN[1:-1], value):
        raise ValueError("must be a variable name: letters, digits and _, not starting with a digit, at most 64")
    return value


def _name_or_all(value: str) -> str:
    return value if value == "*" else values.subdomain(value)


Duration = Annotated[float, BeforeValidator(values.duration_s), _text_type(values.DURATION_PATTERN)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive), _text_type(values.DURATION_PATTERN)]
Money = Annotated[int, BeforeValidator(values.nano_usd), _text_type(values.MONEY_PATTERN)]
Name = Annotated[str, AfterValidator(values.subdomain), _text_type(values.SUBDOMAIN_PATTERN, maxLength=253)]
Label = Annotated[str, AfterValidator(values.label), _text_type(values.LABEL_PATTERN)]
NameOrAll = Annotated[
    str,
    AfterValidator(_name_or_all),
    WithJsonSchema({"anyOf": [{"const": "*"}, {"type": "string", "pattern": values.SUBDOMAIN_PATTERN}]}),
]
FreeText = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(values.free_text)]
HeaderName = Annotated[str, AfterValidator(values.header_name), _text_type(values.HEADER_NAME_PATTERN)]
HeaderValue = Annotated[str, AfterValidator(values.header_value), _text_type(values.HEADER_VALUE_PATTERN)]
Url = Annotated[
    values.Url,
    PlainValidator(lambda value: values.url(value if isinstance(value, str) else "")),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"}),
]
Time = Annotated[float, BeforeValidator(values.unix_s), WithJsonSchema({"type": "string", "format": "date-time"})]
Network = Annotated[
    IPNetwork, PlainValidator(values.network), WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8"]})
]
Provider = Annotated[Literal["openai", "echo"], BeforeValidator(_not_supported)]
SecretEnv = Annotated[str, AfterValidator(_expected_secret_env), _text_type(values.SECRET_ENV_PATTERN)]
Sha256 = Annotated[str, AfterValidator(_expected_sha256), _text_type(values.SHA256_PATTERN)]
Variable = Annotated[str, AfterValidator(_variable), _text_type(template.VARIABLE_PATTERN)]
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
Fields = Annotated[dict[str, Any], Field(max_length=128)]


class Node(BaseModel):
    """Base of every mapping in a document."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_nulls(cls, data: object) -> object:
        if isinstance(data, dict):
            nulls = [(str(key), "has no value; leave the key out") for key, value in data.items() if value is None]
            if nulls:
                raise FieldErrors(*nulls)
        return data


class Metadata(Node):
    """Kubernetes object metadata, the part that means something in a file."""

    name: Name
    namespace: Label | None = Field(default=None, description="Read by Kubernetes only.")
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[LabelKey, str] = Field(default_factory=dict)


class TenantMetadata(Metadata):
    """Metadata of a tenant, whose name is one DNS label."""

    name: Label


class Document(Node):
    """What every document has."""

    api_version: Literal["llmgateway.dev/v1alpha1"]


class Secret(Node):
    """Where a secret is; exactly one of the two."""

    env: SecretEnv | None = Field(default=None, description="Environment variable with the prefix LLM_GATEWAY_SECRET_.")
    file: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        default=None, description="File below the secrets folder of the settings."
    )

    @model_validator(mode="before")
    @classmethod
    def _not_in_a_folder(cls, data: object) -> object:
        if isinstance(data, dict) and "secretRef" in data:
            raise FieldErrors(("secretRef", "is read from the Kubernetes API only; in a folder use env or file"))
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise FieldErrors(("", "must have exactly one of env and file"))
        return self


class Auth(Node):
    """The credential sent upstream."""

    type: Literal["bearer", "header", "none"]
    name: HeaderName | None = Field(default=None, description="The header, for type header.")
    secret: Secret | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = []
        if self.type == "header" and self.name is None:
            errors.append(("name", "is required with type header"))
        if self.type != "header" and self.name is not None:
            errors.append(("name", "is for type header only"))
        if self.type != "none" and self.secret is None:
            errors.append(("secret", f"is required with type {self.type}"))
        if self.type == "none" and self.secret is not None:
            errors.append(("secret", "is not for type none"))
        if errors:
            raise FieldErrors(*errors)
        return self


class Timeouts(Node):
    """How long an attempt may take, stage by stage."""

    connect: PositiveDuration | None = Field(default=None, description="To an open connection. Default 2s.")
    first_byte: PositiveDuration | None = Field(
        default=None, description="From the request to the first byte. Default 60s."
    )
    idle: PositiveDuration | None = Field(default=None, description="Between two bytes of the answer. Default 30s.")
    total: PositiveDuration | None = Field(default=None, description="The whole attempt. Default 9m.")


class Price(Node):
    """USD per million tokens."""

    input_per_million: Money
    cached_input_per_million: Money | None = Field(default=None, description="Default: as inputPerMillion.")
    output_per_million: Money


class Echo(Node):
    """How the echo provider answers."""

    first_token_delay: Duration | None = Field(default=None, description="Default: none.")
    token_delay: Duration | None = Field(default=None, description="Between two tokens. Default: none.")
    output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Default: as many as the last user message has words."
    )


class BackendSpec(Node):
    """A model endpoint."""

    provider: Provider
    url: Url | None = Field(default=None, description="Base URL, such as http://vllm.models.svc:8000/v1. Not for echo.")
    model: FreeText | None = Field(default=None, description="The name sent upstream. Default: the scenario's name.")
    auth: Auth | None = None
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=64)] = Field(
        default_factory=dict, description="Added upstream; never a credential."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Per replica. Default: unbounded."
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] = 4096
    price: Price | None = None
    disabled: bool = False
    echo: Echo | None = Field(default=None, description="For provider echo only.")

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
        if self.provider == "echo":
            for field in ("url", "auth", "headers"):
                if getattr(self, field):
                    yield field, "is not for provider echo, which answers in process"
            return
        if self.url is None:
            yield "url", f"is required with provider {self.provider}"
        if self.echo is not None:
            yield "echo", "is for provider echo only"


class BackendDocument(Document):
    """A model endpoint."""

    kind: Literal["Backend"]
    metadata: Metadata
    spec: BackendSpec


class Target(Node):
    """A backend with its share of the traffic."""

    backend: Name
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class Parameters(Node):
    """Request fields that the scenario sets."""

    defaults: Fields = Field(
        default_factory=dict,
        description="Used where the request is silent. max_tokens or max_completion_tokens here also chooses the name"
        " under which an output limit is sent.",
    )
    overrides: Fields = Field(default_factory=dict, description="Always win.")
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None, description="The most output tokens that a call may ask for."
    )

    @model_validator(mode="after")
    def _not_governed(self) -> Self:
        errors = [
            (f"{part}.{name}", reason)
            for part, fields in (("defaults", self.defaults), ("overrides", self.overrides))
            for name in fields
            if (reason := _why_governed(part, name))
        ]
        limits = [name for name in OUTPUT_LIMITS if name in self.defaults]
        if len(limits) > 1:
            errors.append((f"defaults.{limits[1]}", f"says the same as {limits[0]}: only one can be sent"))
        errors += [
            (f"defaults.{name}", "must be an integer above zero")
            for name in limits
            if type(self.defaults[name]) is not int or self.defaults[name] < 1
        ]
        if errors:
            raise FieldErrors(*errors)
        return self


def _why_governed(part: str, name: str) -> str:
    if name in ("model", "messages", "stream", "stream_options", "prompt_variables"):
        return "is decided by the request and the gateway"
    if name in OUTPUT_LIMITS and part == "overrides":
        return "is governed by spec.parameters.maxOutputTokens"
    return "" if name and name.isprintable() and len(name) <= 128 else "is not a field name"


class Cache(Node):
    """Whether answers are kept."""

    mode: Literal["none", "exact"] = "none"
    ttl: PositiveDuration | None = Field(default=None, description="Default 10m.")


class Access(Node):
    """Who may ask for the scenario."""

    tenants: Annotated[list[NameOrAll], Field(max_length=10_000)] = Field(
        default_factory=list, description='Tenant names, or "*" for all. Omitted: nobody.'
    )


class ScenarioSpec(Node):
    """What a tenant asks for by name (the field `model`)."""

    description: Annotated[str, StringConstraints(max_length=4096)] = ""
    aliases: Annotated[list[FreeText], Field(max_length=64)] = Field(
        default_factory=list, description="Further names; unique among the scenarios that one tenant may use."
    )
    prompt: Name | None = Field(default=None, description="A Prompt, NAME.VERSION.")
    parameters: Parameters = Field(default_factory=Parameters)
    targets: Annotated[list[Target], Field(min_length=1, max_length=64)]
    fallbacks: Annotated[list[Name], Field(max_length=16)] = Field(
        default_factory=list, description="Backends in order, before the first byte only."
    )
    cache: Cache = Field(default_factory=Cache)
    access: Access = Field(default_factory=Access)
    disabled: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [*repeated("aliases", self.aliases), *repeated("fallbacks", self.fallbacks)]
        backends = [target.backend for target in self.targets]
        errors += [(f"{field}.backend", reason) for field, reason in repeated("targets", backends)]
        if not any(target.weight for target in self.targets):
            errors.append(("targets", "must have a weight above zero"))
        if errors:
            raise FieldErrors(*errors)
        return self


class ScenarioDocument(Document):
    """What a tenant asks for by name."""

    kind: Literal["Scenario"]
    metadata: Metadata
    spec: ScenarioSpec


def repeated(field: str, items: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (field, reason) for every item that came before."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item in seen:
            yield f"{field}[{index}]", f"`{item}` is listed twice"
        seen.add(item)
