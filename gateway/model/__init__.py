"""The values that travel between packages: frozen, typed, without behaviour that does I/O.

Money is an integer of nano-USD, durations are float seconds (``_s``), sizes are bytes. The registry compiles its
documents to these values once per load; a request reads them and never changes them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal

import msgspec

from gateway.fingerprint import digest_of
from gateway.model.base import (
    AnthropicOptions,
    Api,
    Batch,
    BedrockOptions,
    Credentials,
    EchoOptions,
    Frozen,
    Operation,
    Price,
    Problem,
    Timeouts,
    Usage,
)
from gateway.model.credentials import Credential

__all__ = [  # and all below
    "AnthropicOptions",
    "Api",
    "Batch",
    "BedrockOptions",
    "Credential",
    "Credentials",
    "EchoOptions",
    "Frozen",
    "Operation",
    "Price",
    "Problem",
    "Timeouts",
    "Usage",
]

Provider = Literal["openai", "azure", "anthropic", "bedrock", "gemini", "vertex", "echo"]
"""Wire dialects that a backend may speak today."""

Dialect = Literal["chat", "messages", "responses", "completions"]
"""What a caller may speak: OpenAI Chat Completions, Anthropic Messages, OpenAI Responses, OpenAI Completions."""

OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")
"""The two names of a request's output limit: the newer one and the one that more servers know."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Queue(Frozen, frozen=True):
    """Who may wait for a backend that is full or not ready."""

    max_waiting: int = 100  # per replica
    wait_s: float = 60.0


class Service(Frozen, frozen=True):
    """A Kubernetes Service, of which each endpoint is called for itself."""

    namespace: str
    name: str
    port: int | str  # of its pods by number or name, or of its only port any number


class Endpoint(Frozen, frozen=True):
    """What stands behind a Service: a pod, by a name of its own, at one address of each family that it has."""

    name: str
    addresses: tuple[str, ...]
    port: int


class Origin(Frozen, frozen=True):
    """Where connections of a backend go; the key of a connection pool.

    With a ``service`` they go to its endpoints, and host and port are only its name, for TLS and the Host field.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    service: Service | None = None


class Backend(Frozen, frozen=True):
    """One model endpoint, compiled."""

    no_effect: ClassVar[frozenset[str]] = frozenset(
        {"headers", "credential", "timeouts", "max_concurrent_requests", "queue", "price", "disabled", "batch"}
    )

    name: str
    provider: Provider
    origin: Origin | None  # None for echo
    path: str = ""  # the URL's path without a trailing slash, e.g. "/v1"
    model: str | None = None  # the name sent upstream; None: the name the scenario has
    headers: tuple[tuple[bytes, bytes], ...] = ()  # added upstream, credential included; never logged
    open_headers: tuple[tuple[bytes, bytes], ...] = ()  # those of them that hold no credential
    api_version: str | None = None  # of Azure OpenAI
    credential: Credential | None = None  # what requests are signed with; None: the headers hold all that is needed
    timeouts: Timeouts = Timeouts()
    max_concurrent_requests: int | None = None  # per replica; None: unbounded
    queue: Queue | None = None  # None: a call fails at once
    max_output_tokens: int = 4096
    price: Price | None = None
    disabled: bool = False
    echo: EchoOptions | None = None
    anthropic: AnthropicOptions | None = None  # None for other providers
    bedrock: BedrockOptions | None = None  # None for other providers
    apis: frozenset[Api] = frozenset()  # what it has beside chat completions
    file_uris: tuple[str, ...] = ()  # of Gemini: prefixes of Google's own places that callers may have read
    batch: Batch | None = None  # None: however many inputs a call has, they are sent together
    unsupported_fields: frozenset[str] = frozenset()  # request fields that are not sent to it, in small letters

    def __repr__(self) -> str:
        """The name alone: a repr ends in logs, and the headers hold the credential."""
        return f"Backend({self.name!r})"


class Condition(Frozen, frozen=True):
    """What a request must be for a target to be a candidate; all of it must hold, and None says nothing."""

    tenants: frozenset[str] | None = None
    keys: frozenset[str] | None = None  # names of keys
    min_bytes: int = 0  # of the request's body; both bounds are included
    max_bytes: int | None = None
    tools: bool | None = None
    images: bool | None = None
    headers: tuple[tuple[str, frozenset[str]], ...] = ()  # name in lower case, the values that will do


class Target(Frozen, frozen=True):
    """A backend with its share of a scenario's traffic; weight >= 0."""

    backend: Backend
    weight: int
    when: Condition | None = None  # None: for every request that no other target's condition holds for


class Parameters(Frozen, frozen=True):
    """Request fields that a scenario sets, as raw JSON values by field name, and those that it takes."""

    defaults: Mapping[str, bytes] = {}
    overrides: Mapping[str, bytes] = {}
    max_output_tokens: int | None = None
    allow: frozenset[str] | None = None  # exact names, those that every request may have included; None: all
    deny: frozenset[str] = frozenset()  # in small letters
    check_sampling: bool = False  # whether types and ranges of a request's sampling fields are checked


NO_PARAMETERS = Parameters()
"""Those of a scenario that sets and checks nothing."""

PROMPT_INPUT = "input"
"""The variable of a prompt that stands for what the user said."""

PromptPlacement = Literal["system", "developer", "user"]


class Prompt(Frozen, frozen=True):
    """One immutable prompt version, split at its variables.

    ``parts`` alternates: literal, variable, literal, ... always starting and ending with a literal (maybe empty), so
    a value that contains braces can never be read as template syntax.
    """

    name: str
    input_vars: tuple[str, ...]
    parts: tuple[str, ...]


class AnswerRule(Frozen, frozen=True):
    """What the text of a scenario's answers must be."""

    schema: bytes  # a JSON Schema, as JSON
    response_format: bytes  # the request field that asks a backend for it, as JSON
    retry: bool = False  # whether a whole answer that does not conform is asked for once more


Variant = Literal["base", "canary", "shadow"]


class SimilarityPolicy(Frozen, frozen=True):
    """When a kept answer to a similar question will do; whose embeddings tell."""

    backend: Backend
    timeout_s: float = 1.0  # for an embedding
    threshold: float = 0.95  # least cosine similarity, 0.1..1


class CachePolicy(Frozen, frozen=True):
    """How the answers of a scenario are kept and shared."""

    no_effect: ClassVar[frozenset[str]] = frozenset({"ttl_s", "max_entry_bytes", "similar"})

    ttl_s: float = 600.0
    max_entry_bytes: int = 1_048_576  # of an answer before it is compressed
    ignored: frozenset[str] = frozenset()  # request fields that two calls may differ in and still be the same
    similar: SimilarityPolicy | None = None  # None: the same question only


class Scenario(Frozen, frozen=True, dict=True):
    """What a tenant asks for by name, compiled; a canary and a shadow are scenarios of the same name."""

    no_effect: ClassVar[frozenset[str]] = frozenset(
        {"description", "aliases", "disabled", "created", "canary", "shadow"}
    )

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    prompt: Prompt | None = None
    prompt_placement: PromptPlacement | None = None  # None: "user" for a prompt that takes the input, else "system"
    parameters: Parameters = NO_PARAMETERS
    answer: AnswerRule | None = None
    targets: tuple[Target, ...] = ()
    fallbacks: tuple[Backend, ...] = ()
    cache: CachePolicy | None = None  # None: nothing is kept or shared
    disabled: bool = False
    created: int = 0  # Unix seconds, for /v1/models; the first load that saw it
    variant: Variant = "base"
    canary: Canary | None = None
    shadow: Shadow | None = None
    unmatched: Literal["refuse", "fallbacks"] | None = None  # for requests that no target takes
    lenient: bool = False  # whether fields that a backend cannot translate are left out, instead of refused
    conditional: bool = False  # whether any target has a condition

    @cached_property
    def fingerprint(self) -> bytes:
        """A digest of everything compiled that can change an answer; no credential is in it. Made when first asked for.

        Two scenarios with the same one answer alike; equal over replicas and releases for as long as their fields are.
        """
        return digest_of(self)


class Abort(Frozen, frozen=True):
    """The bounds of a canary; None where it has none of that kind."""

    error_ratio: float | None = None
    first_token_p95_s: float | None = None
    min_requests: int = 50


class Canary(Frozen, frozen=True):
    """A variant that takes a share of the callers. ``rollout`` names the scenario's content, on every replica alike."""

    scenario: Scenario
    percent: float  # 0..100
    rollout: str
    sticky: Literal["request", "key", "tenant", "user"] = "key"
    abort: Abort | None = None


class Shadow(Frozen, frozen=True):
    """A variant that is sent copies of a share of the requests, and whose answers nobody sees."""

    scenario: Scenario
    percent: float  # 0..100


LimitUnit = Literal["requests", "tokens", "inputTokens", "outputTokens", "cost", "concurrency"]


class Limit(Frozen, frozen=True):
    """One limit of a tenant or key. ``amount`` and ``burst`` are counts, or nano-USD where the unit is cost."""

    name: str
    unit: LimitUnit
    per: Literal["second", "minute", "hour", "day", "month"] | None  # None for concurrency
    amount: int
    burst: int | None = None
    scenario: str | None = None
    mode: Literal["enforce", "shadow"] = "enforce"
    on_redis_loss: Literal["local", "open", "closed"] = "local"


class Oidc(Frozen, frozen=True):
    """What a JWT must say to speak for a tenant; see ``auth.tokens``."""

    issuer: str  # exactly as the claim iss has it
    audience: str
    claim: str
    value: str


class Tenant(Frozen, frozen=True):
    """A tenant, compiled. ``scenarios`` maps every name and alias that this tenant may ask for."""

    name: str
    scenarios: Mapping[str, Scenario]
    display_name: str = ""
    limits: tuple[Limit, ...] = ()
    ip_allow_list: tuple[IPNetwork, ...] | None = None  # None: everywhere; empty: nowhere
    disabled: bool = False
    oidc: Oidc | None = None


class ApiKey(Frozen, frozen=True):
    """A key's document, compiled; its digests are the index of the snapshot."""

    name: str
    scenarios: frozenset[str] | None = None  # names, not aliases; None: all of the tenant's
    limits: tuple[Limit, ...] = ()
    disabled: bool = False


class Principal(Frozen, frozen=True):
    """Who calls, decided by ``auth``; nothing below it looks at a credential again."""

    tenant: Tenant
    key: ApiKey


class KeyEntry(Frozen, frozen=True):
    """What one digest opens, and until when (Unix seconds; None: no end)."""

    principal: Principal
    expires_at: float | None = None


class Issuer(Frozen, frozen=True):
    """Who the tokens of one issuer speak for."""

    grants: tuple[tuple[str, str], ...]  # the audiences and claims that matter, each pair once
    principals: Mapping[tuple[str, str, str], Principal]  # by audience, claim and the claim's value


class Snapshot(Frozen, frozen=True):
    """The good objects of one load of the registry: immutable, swapped in one assignment."""

    generation: int
    hash: str  # hex digest over the content; equal for equal registries
    loaded_at: float  # Unix seconds
    keys: Mapping[bytes, KeyEntry]  # by the 32 bytes of the SHA-256 of the whole key
    tenants: Mapping[str, Tenant]
    scenarios: Mapping[str, Scenario]
    backends: Mapping[str, Backend]
    object_counts: Mapping[tuple[str, str], int]  # (kind, "live" | "stale" | "refused") -> how many
    issuers: Mapping[str, Issuer] = {}  # by the exact claim iss


class Native(Frozen, frozen=True):
    """A request as its caller wrote it, in another dialect than chat: for a backend that speaks it, too."""

    dialect: Dialect  # chat: it passes through to no backend
    fields: Mapping[str, msgspec.Raw | bytes]  # every top-level member of the body once
    chat: Mapping[str, msgspec.Raw | bytes]  # what was made of them: by this, what a scenario has changed is known
    beyond: tuple[str, ...] = ()  # fields that a chat request has no place for, by the names the caller knows them by
    betas: tuple[str, ...] = ()  # of ``messages``: what the caller's anthropic-beta header asks for


class ChatRequest(Frozen, frozen=True):
    """A chat completion, or another operation, as asked for: the fields that route, limit or bill, decoded; all, raw.

    ``fields`` holds every top-level member of the body exactly once, in the caller's order, as raw JSON. Where the
    caller speaks another dialect, they are a translation of what it wrote, which is ``native``.
    """

    model: str
    fields: Mapping[str, msgspec.Raw | bytes]
    stream: bool = False
    include_usage: bool = False  # the caller itself asked for a usage event
    max_output_tokens: int | None = None
    choices: int = 1  # the field ``n``
    answers: int = 1  # how many answers the call may take: 2 where one that does not conform is asked for again
    body_bytes: int = 0
    variables_field: str = "prompt_variables"  # which of the fields holds the variables of the scenario's prompt
    output_limit: int | None = None
    """The most output tokens of one choice that any backend may be asked for, whatever the fields say."""

    native: Native | None = None
    operation: Operation = "chat"
    lenient: bool = False  # whether what a backend cannot do is left out, instead of refused


class Plan(Frozen, frozen=True):
    """The backends to try, in order, and what was left out: (backend, reason)."""

    attempts: tuple[Backend, ...]
    dropped: tuple[tuple[str, str], ...] = ()
    may_wait: bool = True  # for a place at the last backend, where that has a queue
