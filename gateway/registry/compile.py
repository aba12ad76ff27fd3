"""From valid documents to the values of ``gateway.model``, with what they refer to resolved.

Pure but for reading a backend's secret through the given source. A reference that does not resolve raises FieldErrors
naming each field.
"""

from __future__ import annotations

import msgspec

from gateway import model
from gateway.dialects.openai.structured import response_format
from gateway.registry import template
from gateway.registry.accounts import ApiKeyDocument, PromptDocument, TenantDocument
from gateway.registry.accounts import Limit as LimitSpec
from gateway.registry.backend import WITH_APIS
from gateway.registry.compile_auth import NOT_READ, SecretSource, auth_headers, credential_of
from gateway.registry.documents import Answer as AnswerSpec
from gateway.registry.documents import Anthropic as AnthropicSpec
from gateway.registry.documents import BackendDocument, BackendSpec, FieldErrors
from gateway.registry.documents import Bedrock as BedrockSpec
from gateway.registry.documents import Cache as CacheSpec
from gateway.registry.documents import Echo as EchoSpec
from gateway.registry.documents import Parameters as ParametersSpec
from gateway.registry.documents import Queue as QueueSpec
from gateway.registry.documents import Timeouts as TimeoutsSpec
from gateway.registry.scope import References, Scope

_ALWAYS_ALLOWED = frozenset({"model", "messages", "stream", "stream_options", *model.OUTPUT_LIMITS})


NOT_IN_A_FOLDER = "is read from the Kubernetes API only; in a folder use env or file"
NOT_IN_THE_CLUSTER = "is for a registry in a folder; in the cluster use secretRef"


class AnySecret:
    """Stands in for secrets where a registry is looked at far from them; counts how many were asked for.

    ``cluster``: the documents are for the cluster, where other secrets may be named than in a folder.
    """

    def __init__(self, *, cluster: bool = False) -> None:
        self.in_cluster = cluster
        self.asked = 0

    def env(self, name: str) -> bytes:  # noqa: ARG002  # the names are checked with the documents
        """Something in a folder, whatever the name."""
        return self._something(NOT_IN_THE_CLUSTER if self.in_cluster else "")

    def file(self, name: str) -> bytes:
        """Something in a folder, whatever the name."""
        return self.env(name)

    def ref(self, name: str, key: str) -> bytes:  # noqa: ARG002  # the names are checked with the documents
        """Something in the cluster, whatever the name."""
        return self._something("" if self.in_cluster else NOT_IN_A_FOLDER)

    def _something(self, refusal: str) -> bytes:
        if refusal:
            raise ValueError(refusal)
        self.asked += 1
        return NOT_READ


class CompiledKey(model.Frozen, frozen=True):
    """An ApiKey's document with its tenant: what each of its digests opens."""

    principal: model.Principal
    expiries: tuple[tuple[bytes, float | None], ...]  # digest, Unix seconds


def compile_backend(document: BackendDocument, secrets: SecretSource) -> model.Backend:
    """Compile a backend; its credential becomes one of its headers, or what its requests are signed with."""
    spec = document.spec
    price = spec.price
    if spec.service is not None and not secrets.in_cluster:
        raise FieldErrors(("spec.service", "is for a registry in the cluster only; in a folder use url"))
    where = spec.url or spec.service
    open_headers = tuple((name.encode(), value.encode()) for name, value in spec.headers.items())
    return model.Backend(
        name=document.metadata.name,
        provider=spec.provider,
        origin=where.origin if where else None,
        path=where.path if where else "",
        model=spec.model,
        headers=(*open_headers, *auth_headers(spec.auth, spec.provider, secrets)),
        open_headers=open_headers,
        credential=credential_of(spec.auth, secrets),
        api_version=spec.api_version,
        file_uris=tuple(spec.file_uris),
        timeouts=_timeouts(spec.timeouts),
        max_concurrent_requests=spec.max_concurrent_requests,
        queue=None if spec.queue is None else _queue(spec.queue),
        max_output_tokens=spec.max_output_tokens,
        price=None
        if price is None
        else model.Price(
            input_nano_usd=price.input_per_million,
            cached_input_nano_usd=price.input_per_million
            if price.cached_input_per_million is None
            else price.cached_input_per_million,
            output_nano_usd=price.output_per_million,
            cache_write_nano_usd=price.cache_write_input_per_million,
        ),
        disabled=spec.disabled,
        unsupported_fields=frozenset(name.casefold() for name in spec.unsupported_fields),
        apis=_apis(spec),
        batch=None
        if spec.batch is None
        else model.Batch(inputs=spec.batch.max_inputs, concurrent=spec.batch.concurrent),
        echo=_echo(spec.echo or EchoSpec()) if spec.provider == "echo" else None,
        bedrock=_bedrock(spec.bedrock or BedrockSpec()) if spec.provider == "bedrock" else None,
        anthropic=_anthropic(spec.anthropic or AnthropicSpec()) if spec.provider == "anthropic" else None,
    )


def _apis(spec: BackendSpec) -> frozenset[model.Api]:
    """What a backend has beside chat completions; those that do not say have embeddings, as an echo has."""
    if spec.apis is not None:
        return frozenset(spec.apis)
    return frozenset({"embeddings"}) if spec.provider in (*WITH_APIS, "echo") else frozenset()


def _timeouts(spec: TimeoutsSpec) -> model.Timeouts:
    default = model.Timeouts()
    return model.Timeouts(
        connect_s=spec.connect or default.connect_s,
        first_byte_s=spec.first_byte or default.first_byte_s,
        idle_s=spec.idle or default.idle_s,
        total_s=spec.total or default.total_s,
    )


def _queue(spec: QueueSpec) -> model.Queue:
    return model.Queue(max_waiting=spec.max, wait_s=spec.wait or model.Queue().wait_s)


def _echo(spec: EchoSpec) -> model.EchoOptions:
    return model.EchoOptions(
        first_token_delay_s=spec.first_token_delay or 0.0,
        token_delay_s=spec.token_delay or 0.0,
        output_tokens=spec.output_tokens,
    )


def _anthropic(spec: AnthropicSpec) -> model.AnthropicOptions:
    return model.AnthropicOptions(
        version=spec.version,
        betas=tuple(dict.fromkeys(spec.betas)),
        caller_betas=frozenset(spec.caller_betas),
        thinking=spec.thinking,
    )


def _bedrock(spec: BedrockSpec) -> model.BedrockOptions:
    guardrail = spec.guardrail
    return model.BedrockOptions(
        model_fields=tuple(dict.fromkeys(spec.additional_model_request_fields)),
        guardrail=None if guardrail is None else (guardrail.identifier, guardrail.version),
    )


def compile_prompt(document: PromptDocument) -> model.Prompt:
    """Compile a prompt: its template split at the variables."""
    return model.Prompt(
        name=document.metadata.name,
        input_vars=tuple(document.spec.input_vars),
        parts=template.split(document.spec.template),
    )


def compile_parameters(spec: ParametersSpec) -> model.Parameters:
    """Compile what a scenario sets, bounds and refuses; NO_PARAMETERS itself where that is nothing."""
    parameters = model.Parameters(
        defaults={name: msgspec.json.encode(value) for name, value in spec.defaults.items()},
        overrides={name: msgspec.json.encode(value) for name, value in spec.overrides.items()},
        max_output_tokens=spec.max_output_tokens,
        allow=None if spec.allow is None else _ALWAYS_ALLOWED.union(spec.allow),
        deny=frozenset(name.casefold() for name in spec.deny),
        check_sampling=spec.check_sampling,
    )
    return model.NO_PARAMETERS if parameters == model.NO_PARAMETERS else parameters


def compile_cache(spec: CacheSpec, scope: Scope) -> model.CachePolicy | None:
    """Compile how answers are kept and shared; None for not at all."""
    if spec.mode == "none":
        return None
    default = model.CachePolicy()
    return model.CachePolicy(
        ttl_s=spec.ttl or default.ttl_s,
        max_entry_bytes=spec.max_entry_bytes or default.max_entry_bytes,
        ignored=frozenset(spec.ignore),
        similar=None
        if spec.embeddings is None
        else model.SimilarityPolicy(
            backend=scope.backends[spec.embeddings.backend],
            timeout_s=spec.embeddings.timeout or 1.0,
            threshold=spec.threshold or 0.95,
        ),
    )


def compile_answer(spec: AnswerSpec | None, scenario: str) -> model.AnswerRule | None:
    """Compile what the answers of a scenario must be; its schema was checked with the document."""
    if spec is None:
        return None
    return model.AnswerRule(
        schema=msgspec.json.encode(spec.schema_),
        response_format=response_format(scenario, spec.schema_, strict=spec.strict),
        retry=spec.retry,
    )


def compile_tenant(document: TenantDocument, scope: Scope, *, lenient: bool = False) -> model.Tenant:
    """Compile a tenant with every scenario that it may ask for.

    Raises FieldErrors for a scenario that is missing, unless ``lenient``: then it is left out.
    """
    spec, errors = document.spec, References(scope)
    for index, name in enumerate(spec.scenarios):
        errors.need(name == "*" or name in scope.scenarios, f"spec.scenarios[{index}]", "Scenario", name)
    errors.need_limits(spec.limits)
    if not lenient:
        errors.finish()
    allowed = spec.ip_allow_list
    return model.Tenant(
        name=document.metadata.name,
        scenarios=scope.visible(document.metadata.name, spec.scenarios),
        display_name=spec.display_name,
        limits=tuple(map(_limit, spec.limits)),
        ip_allow_list=None if allowed is None else tuple(allowed),
        disabled=spec.disabled,
        oidc=None if spec.oidc is None else model.Oidc(**spec.oidc.model_dump()),
    )


def compile_key(document: ApiKeyDocument, scope: Scope, *, lenient: bool = False) -> CompiledKey:
    """Compile a key with its tenant; raises FieldErrors for a tenant or, unless ``lenient``, a scenario missing."""
    spec, errors = document.spec, References(scope)
    tenant = scope.tenants.get(spec.tenant)
    errors.need(tenant is not None, "spec.tenant", "Tenant", spec.tenant)
    if not lenient:
        for index, name in enumerate(spec.scenarios or ()):
            errors.need(name == "*" or name in scope.scenarios, f"spec.scenarios[{index}]", "Scenario", name)
        errors.need_limits(spec.limits)
    errors.finish()
    assert tenant is not None
    narrowed = None if spec.scenarios is None or "*" in spec.scenarios else frozenset(spec.scenarios)
    key = model.ApiKey(
        name=document.metadata.name,
        scenarios=narrowed,
        limits=tuple(map(_limit, spec.limits)),
        disabled=spec.disabled,
    )
    expiries = tuple((bytes.fromhex(digest.sha256), digest.expires_at) for digest in spec.digests)
    return CompiledKey(principal=model.Principal(tenant=tenant, key=key), expiries=expiries)


def _limit(spec: LimitSpec) -> model.Limit:
    return model.Limit(
        name=spec.effective_name,
        unit=spec.unit,
        per=spec.per,
        amount=spec.counted,
        burst=spec.burst,
        scenario=spec.scenario,
        mode=spec.mode,
        on_redis_loss=spec.on_redis_loss,
    )
