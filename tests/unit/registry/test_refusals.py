"""Every document that is wrong on its own is refused with its file, its object and the field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.registry.folders import (
    Document,
    Folder,
    api_key,
    backend,
    echo,
    prompt,
    scenario,
    service_backend,
    tenant,
    with_field,
)

LIMIT = {"unit": "tokens", "per": "minute", "amount": 100}
SECRET = {"env": "LLM_GATEWAY_SECRET_QWEN"}


def auth(**fields: Any) -> Document:
    """Return a backend with this authentication."""
    return backend(auth=fields)


def limits(*items: dict[str, Any]) -> Document:
    """Return a tenant with these limits."""
    return tenant(limits=list(items))


def issuer(url: str) -> Document:
    """Return a tenant whose tokens this issuer signs."""
    return tenant(oidc={"issuer": url, "audience": "a", "claim": "b", "value": "c"})


BACKENDS: list[tuple[Document, str, str]] = [
    (backend(provider="azure", url="https://x.openai.azure.com/openai/v1"), "spec.url", "without /openai"),
    (backend(provider="azure", apiVersion="v1"), "spec.apiVersion", "pattern"),
    (backend(apiVersion="2024-10-21"), "spec.apiVersion", "for provider azure only"),
    (backend(provider="vertex", url="https://eu-aiplatform.googleapis.com/v1"), "spec.url", "/publishers/google"),
    (backend(fileUris=["gs://a/"]), "spec.fileUris", "gemini and vertex only"),
    (backend(provider="gemini", fileUris=["gs://a"]), "spec.fileUris[0]", "pattern"),
    (backend(anthropic={}), "spec.anthropic", "for provider anthropic only"),
    (backend(provider="anthropic", anthropic={"version": "latest"}), "spec.anthropic.version", "pattern"),
    (backend(provider="anthropic", anthropic={"betas": ["*"]}), "spec.anthropic.betas[0]", "pattern"),
    (backend(provider="anthropic", headers={"anthropic-beta": "a"}), "spec.headers.anthropic-beta", "spec.anthropic"),
    (
        backend(auth={"type": "bearerFile", "secret": {"env": "LLM_GATEWAY_SECRET_A"}}),
        "spec.auth.secret",
        "has to be a file with type bearerFile",
    ),
    (backend(bedrock={}), "spec.bedrock", "for provider bedrock only"),
    (
        backend(provider="bedrock", bedrock={"additionalModelRequestFields": ["Temperature"]}),
        "spec.bedrock.additionalModelRequestFields[0]",
        "Converse has a place for",
    ),
    (
        backend(provider="bedrock", bedrock={"additionalModelRequestFields": ["messages"]}),
        "spec.bedrock.additionalModelRequestFields[0]",
        "Converse has a place for",
    ),
    (
        backend(provider="bedrock", bedrock={"guardrail": {"identifier": "a/b", "version": "1"}}),
        "spec.bedrock.guardrail.identifier",
        "pattern",
    ),
    (backend(auth={"type": "googleServiceAccount"}), "spec.auth.secret", "is required with type googleServiceAccount"),
    (
        backend(provider="openia"),
        "spec.provider",
        "must be 'openai', 'azure', 'anthropic', 'bedrock', 'gemini', 'vertex' or 'echo'",
    ),
    (backend(provider=1), "spec.provider", "must be"),
    (backend(url="ftp://x"), "spec.url", "http://"),
    (backend(url=5), "spec.url", "must be"),
    (with_field(backend(), "spec", {"provider": "openai"}), "spec", "must have url, or in the cluster service"),
    (backend(model=""), "spec.model", "at least 1"),
    (backend(model=" x"), "spec.model", "printable"),
    (backend(model="a\nb"), "spec.model", "printable"),
    (backend(modle="x"), "spec.modle", "not a known field"),
    (backend(max_output_tokens=5), "spec.max_output_tokens", "not a known field"),
    (backend(maxOutputTokens=0), "spec.maxOutputTokens", "greater than or equal to 1"),
    (backend(maxOutputTokens="5"), "spec.maxOutputTokens", "must be an integer"),
    (backend(maxOutputTokens=1.0), "spec.maxOutputTokens", "must be an integer"),
    (backend(maxOutputTokens=True), "spec.maxOutputTokens", "must be an integer"),
    (backend(maxConcurrentRequests=0), "spec.maxConcurrentRequests", "greater than or equal to 1"),
    (backend(service={"name": "vllm", "namespace": "models", "port": 80}), "spec.service", "is instead of url"),
    (service_backend(), "spec.service", "in the cluster only; in a folder use url"),
    (service_backend(port=0), "spec.service.port", "a number from 1 to 65535"),
    (service_backend(port="80"), "spec.service.port", "or the name of a port"),
    (service_backend(port=True), "spec.service.port", "must be a number"),
    (service_backend(path="/v1/"), "spec.service.path", "without a slash at its end"),
    (service_backend(path="/v1?x"), "spec.service.path", "must be a path"),
    (service_backend(name="a.b"), "spec.service.name", "DNS label"),
    (service_backend(namespace="Models"), "spec.service.namespace", "DNS label"),
    (echo(service={"name": "vllm", "namespace": "models", "port": 80}), "spec.service", "is not for provider echo"),
    (backend(queue=True), "spec.queue", "must be a mapping"),
    (backend(queue={"max": 0}), "spec.queue.max", "greater than or equal to 1"),
    (backend(queue={"wait": "0s"}), "spec.queue.wait", "longer than zero"),
    (backend(queue={"wait": "2h"}), "spec.queue.wait", "at most 1h"),
    (backend(disabled="yes"), "spec.disabled", "must be true or false"),
    (backend(disabled=1), "spec.disabled", "must be true or false"),
    (backend(price=None), "spec.price", "has no value"),
    (backend(price={"inputPerMillion": "1"}), "spec.price.outputPerMillion", "is required"),
    (backend(price={"inputPerMillion": 0.5, "outputPerMillion": "1"}), "spec.price.inputPerMillion", "in quotes"),
    (backend(timeouts={"connect": "2"}), "spec.timeouts.connect", "duration"),
    (backend(timeouts={"connect": 2}), "spec.timeouts.connect", "duration"),
    (backend(timeouts={"total": "0s"}), "spec.timeouts.total", "longer than zero"),
    (backend(timeouts={"first_byte": "1s"}), "spec.timeouts.first_byte", "not a known field"),
    (backend(timeouts=[]), "spec.timeouts", "must be a mapping"),
    (backend(headers={"content-length": "5"}), "spec.headers.content-length", "set by the gateway"),
    (backend(headers={"Host": "x"}), "spec.headers.Host", "set by the gateway"),
    (backend(headers={"Connection": "x"}), "spec.headers.Connection", "belongs to one connection"),
    (backend(headers={"x-a": "b\r\nc: d"}), "spec.headers.x-a", "visible ASCII"),
    (backend(headers={"x a": "b"}), "spec.headers.x a", "not a header name"),
    (backend(headers={"x-a": 5}), "spec.headers.x-a", "must be a string"),
    (backend(headers={"X-A": "b", "x-a": "c"}), "spec.headers.x-a", "set twice"),
    (backend(headers={"Authorization": "Bearer x"}), "spec.headers.authorization", "spec.auth"),
    (backend(headers={"api-key": "x"}), "spec.headers.api-key", "spec.auth"),
    (
        backend(headers={"x-token": "x"}, auth={"type": "header", "name": "X-Token", "secret": SECRET}),
        "spec.headers.x-token",
        "spec.auth",
    ),
    (auth(type="basic"), "spec.auth.type", "must be 'bearer', 'bearerFile', 'googleServiceAccount', 'header', 'aws'"),
    (auth(secret=SECRET), "spec.auth.type", "is required"),
    (auth(type="bearer"), "spec.auth.secret", "is required with type bearer"),
    (auth(type="header", secret=SECRET), "spec.auth.name", "is required with type header"),
    (auth(type="bearer", name="x", secret=SECRET), "spec.auth.name", "for type header only"),
    (auth(type="header", name="Host", secret=SECRET), "spec.auth.name", "set by the gateway"),
    (auth(type="none", secret=SECRET), "spec.auth.secret", "is not for type none"),
    (auth(type="aws"), "spec.auth.region", "is required with type aws"),
    (auth(type="aws", region="EU"), "spec.auth.region", "pattern"),
    (auth(type="aws", region="eu-west-1", secret=SECRET), "spec.auth.secret", "is not for type aws"),
    (auth(type="aws", region="eu-west-1", accessKeyId=SECRET), "spec.auth.secretAccessKey", "has both parts"),
    (auth(type="aws", region="eu-west-1", secretAccessKey=SECRET), "spec.auth.accessKeyId", "has both parts"),
    (auth(type="aws", region="eu-west-1", sessionToken=SECRET), "spec.auth.sessionToken", "for an accessKeyId"),
    (auth(type="bearer", secret=SECRET, region="eu-west-1"), "spec.auth.region", "for type aws only"),
    (auth(type="bearer", secret="sk-live-1"), "spec.auth.secret", "must be a mapping"),
    (auth(type="bearer", secret={}), "spec.auth.secret", "exactly one of env, file and secretRef"),
    (auth(type="bearer", secret={**SECRET, "file": "x"}), "spec.auth.secret", "exactly one of env, file and secretRef"),
    (auth(type="bearer", secret={"env": "sk-live-1"}), "spec.auth.secret.env", "LLM_GATEWAY_SECRET_"),
    (auth(type="bearer", secret={"env": "HOME"}), "spec.auth.secret.env", "LLM_GATEWAY_SECRET_"),
    (auth(type="bearer", secret={"secretRef": {"name": "a", "key": "b"}}), "spec.auth.secret.secretRef", "in a folder"),
    (auth(type="bearer", secret={"value": "sk-live-1"}), "spec.auth.secret.value", "not a known field"),
    (backend(echo={}), "spec.echo", "for provider echo only"),
    (echo(url="http://x"), "spec.url", "not for provider echo"),
    (echo(auth={"type": "none"}), "spec.auth", "not for provider echo"),
    (echo(echo={"tokenDelay": "fast"}), "spec.echo.tokenDelay", "duration"),
    (backend(unsupportedFields=["MAX_COMPLETION_TOKENS"]), "spec.unsupportedFields[0]", "decided by the gateway"),
    (backend(unsupportedFields=[""]), "spec.unsupportedFields[0]", "not a field name"),
    (echo(echo={"outputTokens": 0}), "spec.echo.outputTokens", "greater than or equal to 1"),
]

SCENARIOS: list[tuple[Document, str, str]] = [
    (scenario(targets=[]), "spec.targets", "must have at least 1 item"),
    (with_field(scenario(), "spec", {}), "spec.targets", "is required"),
    (scenario(targets=[{"backend": "qwen", "weight": 0}]), "spec.targets", "weight above zero"),
    (scenario(targets=[{"backend": "qwen", "weight": -1}]), "spec.targets[0].weight", "greater than or equal to 0"),
    (scenario(targets=[{"backend": "qwen", "weight": 0.5}]), "spec.targets[0].weight", "must be an integer"),
    (scenario(targets=["qwen"]), "spec.targets[0]", "must be a mapping"),
    (scenario(targets=[{"backend": "qwen"}, {"backend": "qwen"}]), "spec.targets[1].backend", "listed twice"),
    (scenario(fallbacks=["gpt", "gpt"]), "spec.fallbacks[1]", "listed twice"),
    (scenario(fallbacks=["Gpt"]), "spec.fallbacks[0]", "DNS subdomain"),
    (scenario(aliases=["a", "a"]), "spec.aliases[1]", "listed twice"),
    (scenario(aliases=[""]), "spec.aliases[0]", "at least 1"),
    (scenario(aliases=["x" * 257]), "spec.aliases[0]", "at most 256"),
    (scenario(aliases="gpt-4o"), "spec.aliases", "must be a list"),
    (scenario(prompt="Support"), "spec.prompt", "DNS subdomain"),
    (scenario(parameters={"defaults": {"model": "x"}}), "spec.parameters.defaults.model", "decided by the request"),
    (
        scenario(parameters={"overrides": {"stream": True}}),
        "spec.parameters.overrides.stream",
        "decided by the request",
    ),
    (scenario(parameters={"overrides": {"Model": "x"}}), "spec.parameters.overrides.Model", "decided by the request"),
    (scenario(parameters={"defaults": {"MAX_TOKENS": 5}}), "spec.parameters.defaults.MAX_TOKENS", "maxOutputTokens"),
    (scenario(parameters={"overrides": {"messages": []}}), "spec.parameters.overrides.messages", "decided by"),
    (scenario(parameters={"defaults": {"stream_options": {}}}), "spec.parameters.defaults.stream_options", "decided"),
    (scenario(parameters={"overrides": {"max_tokens": 5}}), "spec.parameters.overrides.max_tokens", "maxOutputTokens"),
    (
        scenario(parameters={"defaults": {"max_completion_tokens": 5, "max_tokens": 5}}),
        "spec.parameters.defaults.max_tokens",
        "only one can be sent",
    ),
    (
        scenario(parameters={"defaults": {"max_completion_tokens": 0}}),
        "spec.parameters.defaults.max_completion_tokens",
        "above zero",
    ),
    (scenario(parameters={"defaults": [1]}), "spec.parameters.defaults", "must be a mapping"),
    (scenario(parameters={"maxOutputTokens": 0}), "spec.parameters.maxOutputTokens", "greater than or equal to 1"),
    (scenario(parameters={"defaults": {"temperature": 2.1}}), "spec.parameters.defaults.temperature", "from 0 to 2"),
    (scenario(parameters={"overrides": {"top_k": "5"}}), "spec.parameters.overrides.top_k", "an integer from -1"),
    (scenario(parameters={"deny": ["tools", "tools"]}), "spec.parameters.deny[1]", "listed twice"),
    (scenario(parameters={"allow": ["n"], "deny": ["N"]}), "spec.parameters.allow[0]", "denied as well"),
    (scenario(parameters={"deny": ["Messages"]}), "spec.parameters.deny[0]", "every request"),
    (scenario(parameters={"allow": ["prompt_variables"]}), "spec.parameters.allow[0]", "every request"),
    (scenario(parameters={"allow": ["a\nb"]}), "spec.parameters.allow[0]", "not a field name"),
    (scenario(answer={}), "spec.answer.schema", "is required"),
    (scenario(answer={"schema": {}}), "spec.answer.schema", "at least 1"),
    (scenario(answer={"schema": True}), "spec.answer.schema", "must be a mapping"),
    (scenario(answer={"schema": {"type": "strin"}}), "spec.answer.schema", "is not a JSON Schema"),
    (scenario(answer={"schema": {"$ref": "https://example.com/x"}}), "spec.answer.schema", "Retrieval is disabled"),
    (scenario(answer={"schema": {"title": "x" * 65_536}}), "spec.answer.schema", "larger than 65536 bytes"),
    (scenario(answer={"schema": {"type": "object"}, "retries": 1}), "spec.answer.retries", "not a known field"),
    (scenario(promptPlacement="user"), "spec.promptPlacement", "without a prompt"),
    (scenario(prompt="a.v1", promptPlacement="assistant"), "spec.promptPlacement", "must be 'system'"),
    (scenario(cache={"mode": "fuzzy"}), "spec.cache.mode", "must be 'none', 'exact' or 'semantic'"),
    (scenario(cache={"mode": "semantic"}), "spec.cache.embeddings", "required"),
    (scenario(cache={"mode": "exact", "threshold": 0.9}), "spec.cache.threshold", "belongs to the mode semantic"),
    (
        scenario(cache={"mode": "semantic", "embeddings": {"backend": "qwen"}, "threshold": 1.5}),
        "spec.cache.threshold",
        "",
    ),
    (scenario(cache={"mode": "exact", "ignore": ["seed"]}), "spec.cache.ignore[0]", "must be "),
    (scenario(cache={"ttl": "0s"}), "spec.cache.ttl", "longer than zero"),
    (scenario(access={"tenants": ["acme-*"]}), "spec.access.tenants[0]", "DNS subdomain"),
    (scenario(access={"tenants": "*"}), "spec.access.tenants", "must be a list"),
    (scenario(access={"tenant": ["*"]}), "spec.access.tenant", "not a known field"),
]

PROMPTS: list[tuple[Document, str, str]] = [
    (prompt(name="support"), "metadata.name", "NAME.VERSION"),
    (prompt(template=""), "spec.template", "at least 1"),
    (prompt(template="{a}"), "spec.template", "uses `{a}`"),
    (prompt(inputVars=["a"]), "spec.inputVars[0]", "`a` is not used"),
    (prompt(template="{a}", inputVars=["a", "a"]), "spec.inputVars[1]", "`a` is declared twice"),
    (prompt(inputVars=["a-b"]), "spec.inputVars[0]", "variable name"),
    (prompt(template="{"), "spec.template", "line 1, column 1"),
    (prompt(input_vars=[]), "spec.input_vars", "not a known field"),
]

TENANTS: list[tuple[Document, str, str]] = [
    (tenant("a.b"), "metadata.name", "DNS label"),
    (tenant("a" * 64), "metadata.name", "DNS label"),
    (tenant(displayName=5), "spec.displayName", "must be a string"),
    (tenant(scenarios=["a", "a"]), "spec.scenarios[1]", "listed twice"),
    (tenant(scenarios=["gpt 4"]), "spec.scenarios[0]", "DNS subdomain"),
    (tenant(ipAllowList=["10.0.0.1/8"]), "spec.ipAllowList[0]", "10.0.0.0/8 is the block"),
    (tenant(ipAllowList=["office"]), "spec.ipAllowList[0]", "CIDR"),
    (tenant(oidc={"issuer": "https://x", "claim": "b", "value": "c"}), "spec.oidc.audience", "is required"),
    (tenant(oidc={"issuer": "x", "audience": "a", "claim": "b", "value": "c"}), "spec.oidc.issuer", "must match"),
    (issuer("http://idp.example"), "spec.oidc.issuer", "must match"),
    (issuer("https://idp.example?x=1"), "spec.oidc.issuer", "must match"),
    (issuer("https://me@idp.example"), "spec.oidc.issuer", "must match"),
    (issuer("https://"), "spec.oidc.issuer", "must match"),
    (issuer("https:///path"), "spec.oidc.issuer", "no valid host"),
    (issuer("https://idp.example:0"), "spec.oidc.issuer", "no valid port"),
    (issuer("https://idp.exämple"), "spec.oidc.issuer", "ASCII"),
    (limits({**LIMIT, "unit": "words"}), "spec.limits[0].unit", "must be 'requests'"),
    (limits({"unit": "tokens", "per": "minute"}), "spec.limits[0].amount", "is required"),
    (limits({"unit": "tokens", "amount": 5}), "spec.limits[0].per", "is required with unit tokens"),
    (limits({**LIMIT, "per": "week"}), "spec.limits[0].per", "must be 'second'"),
    (limits({"unit": "concurrency", "per": "minute", "amount": 5}), "spec.limits[0].per", "is not for concurrency"),
    (limits({"unit": "concurrency", "amount": 5, "burst": 5}), "spec.limits[0].burst", "for rates only"),
    (limits({**LIMIT, "per": "day", "burst": 5}), "spec.limits[0].burst", "for rates only"),
    (limits({"unit": "cost", "per": "minute", "amount": "5"}), "spec.limits[0].per", "day or month"),
    (limits({"unit": "cost", "per": "day", "amount": 5}), "spec.limits[0].amount", "in quotes"),
    (limits({"unit": "cost", "per": "day", "amount": "0.00"}), "spec.limits[0].amount", "above zero"),
    (limits({"unit": "cost", "per": "month", "amount": "9007200"}), "spec.limits[0].amount", "at most 9007199 USD"),
    (limits({**LIMIT, "amount": "5"}), "spec.limits[0].amount", "must be an integer"),
    (limits({**LIMIT, "amount": 0}), "spec.limits[0].amount", "from 1"),
    (limits({**LIMIT, "amount": -5}), "spec.limits[0].amount", "from 1"),
    (limits({**LIMIT, "amount": 10**16}), "spec.limits[0].amount", "from 1"),
    (limits({**LIMIT, "amount": 1.5}), "spec.limits[0].amount", "must be an integer"),
    (limits({**LIMIT, "amount": True}), "spec.limits[0].amount", "must be an integer"),
    (limits({**LIMIT, "burst": 0}), "spec.limits[0].burst", "greater than or equal to 1"),
    (limits({**LIMIT, "mode": "warn"}), "spec.limits[0].mode", "must be 'enforce' or 'shadow'"),
    (limits({**LIMIT, "onRedisLoss": "fail"}), "spec.limits[0].onRedisLoss", "must be 'local'"),
    (limits({**LIMIT, "name": "A b"}), "spec.limits[0].name", "DNS subdomain"),
    (limits(LIMIT, LIMIT), "spec.limits[1].name", "`tokens-per-minute` is also the name of limits[0]"),
    (limits(LIMIT, {**LIMIT, "unit": "requests", "name": "tokens-per-minute"}), "spec.limits[1].name", "also the name"),
]

KEYS: list[tuple[Document, str, str]] = [
    (api_key(tenant="Acme"), "spec.tenant", "DNS label"),
    (with_field(api_key(), "spec", {"tenant": "acme"}), "spec.digests", "is required"),
    (api_key(digests=[]), "spec.digests", "at least 1 item"),
    (api_key(digests=[{"sha256": "ab"}]), "spec.digests[0].sha256", "64 hexadecimal"),
    (api_key(digests=[{"sha256": "zz" * 32}]), "spec.digests[0].sha256", "64 hexadecimal"),
    (api_key(digests=[{"sha256": "ab" * 32}, {"sha256": "AB" * 32}]), "spec.digests[1].sha256", "listed twice"),
    (
        api_key(digests=[{"sha256": "ab" * 32, "expiresAt": "2027-01-01T00:00:00"}]),
        "spec.digests[0].expiresAt",
        "with a zone",
    ),
    (api_key(key="lgw_secret"), "spec.key", "not a known field"),
    (api_key(limits=[{**LIMIT, "per": "day", "burst": 3}]), "spec.limits[0].burst", "for rates only"),
]

ENVELOPES: list[tuple[Document, str, str]] = [
    ({**tenant(), "apiVersion": "v1"}, "apiVersion", "must be 'llmgateway.dev/v1alpha1'"),
    ({key: value for key, value in tenant().items() if key != "apiVersion"}, "apiVersion", "is required"),
    ({key: value for key, value in tenant().items() if key != "spec"}, "spec", "is required"),
    ({**tenant(), "status": {}}, "status", "not a known field"),
    ({**tenant(), "spec": "x"}, "spec", "must be a mapping"),
    (with_field(tenant(), "metadata.uid", "x"), "metadata.uid", "not a known field"),
    (with_field(tenant(), "metadata.labels", {"a b": "c"}), "metadata.labels.a b", "match pattern"),
    (with_field(tenant(), "metadata.labels", {"a": "b c"}), "metadata.labels.a", "match pattern"),
    (with_field(tenant(), "metadata.namespace", "A"), "metadata.namespace", "DNS label"),
    (with_field(backend(), "metadata.name", "A_b"), "metadata.name", "DNS subdomain"),
    (with_field(backend(), "metadata.name", "a" * 254), "metadata.name", "DNS subdomain"),
]


@pytest.mark.parametrize(
    ("document", "field", "reason"), [*BACKENDS, *SCENARIOS, *PROMPTS, *TENANTS, *KEYS, *ENVELOPES]
)
def test_refused_with_file_object_and_field(folder: Folder, document: Document, field: str, reason: str) -> None:
    """One problem names the file, the object, the field and the reason; nothing of it serves. It stands alone here."""
    folder.write("some/file.yaml", document)
    result = folder.load()
    (problem,) = [each for each in result.problems if not each.reason.startswith("there is no ")]
    label = f"{document['kind']}/{document['metadata']['name']}"
    assert (folder.below(problem), problem.object, problem.field) == (
        "some/file.yaml",
        label[: len(problem.object)],
        field,
    )
    assert reason in problem.reason
    assert "sk-live-1" not in str(problem)
    assert result.snapshot.object_counts[document["kind"], "refused"] == 1
    assert not result.state.live


@pytest.mark.parametrize(
    ("text", "object_name", "field", "reason"),
    [
        ("just text", "document at line 1", "", "must be a mapping"),
        ("- a", "document at line 1", "", "must be a mapping"),
        ("a: 1", "document at line 1", "kind", "must be one of"),
        ("kind: Model", "document at line 1", "kind", "`Model` is not a kind"),
        ("kind: [Backend]", "document at line 1", "kind", "must be one of"),
        ("kind: Backend", "Backend", "metadata", "with a name"),
        ("kind: Backend\nmetadata: {}", "Backend", "metadata.name", "is required"),
        ("kind: Backend\nmetadata: {name: 5}", "Backend", "metadata.name", "is required"),
        ('kind: Backend\nmetadata: {name: "a\\nb"}', "Backend", "metadata.name", "DNS subdomain"),
        ("a: [", "", "", "is not valid YAML: line "),
        ("a: 1\na: 2", "", "", "line 2, column 1: duplicate key `a`"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(
    folder: Folder, text: str, object_name: str, field: str, reason: str
) -> None:
    """A document that says not what it is is named by its line."""
    folder.write("x.yaml", text)
    problem = folder.problem()
    assert (folder.below(problem), problem.object, problem.field) == ("x.yaml", object_name, field)
    assert reason in problem.reason


def test_every_problem_of_every_document_is_listed(folder: Folder) -> None:
    """One load names everything that is wrong, over fields, documents and files."""
    folder.write("a.yaml", backend(url="x", maxOutputTokens=0), tenant("b.c", scenarios=["A", "ok", "B"]))
    folder.write("b.yaml", "a: [")
    assert folder.problems() == [
        ("a.yaml", "Backend/qwen", "spec.maxOutputTokens"),
        ("a.yaml", "Backend/qwen", "spec.url"),
        ("a.yaml", "Tenant/b.c", "metadata.name"),
        ("a.yaml", "Tenant/b.c", "spec.scenarios[0]"),
        ("a.yaml", "Tenant/b.c", "spec.scenarios[1]"),
        ("a.yaml", "Tenant/b.c", "spec.scenarios[2]"),
        ("b.yaml", "", ""),
    ]


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ("version: v2\ntemplate: x", "version", "must be v1"),
        ("template: x", "version", "is required"),
        ("version: v1", "template", "is required"),
        ("version: v1\ntemplate: x\ninputVars: []", "inputVars", "not a known field"),
        ("version: v1\ntemplate: '{a}'", "template", "uses `{a}`"),
        ("version: v1\ntemplate: x\ninput_vars: [a]", "input_vars[0]", "`a` is not used"),
        ("version: v1\ntemplate: x\n---\nversion: v1\ntemplate: y", "", "one document only"),
    ],
)
def test_a_bare_prompt_file_is_refused_in_its_own_terms(folder: Folder, text: str, field: str, reason: str) -> None:
    """Problems of prompts/NAME/VERSION.yaml name the keys of that form."""
    folder.write("prompts/summarize/v1.yaml", text)
    problem = folder.load().problems[0]
    assert (folder.below(problem), problem.object, problem.field) == (
        "prompts/summarize/v1.yaml",
        "Prompt/summarize.v1",
        field,
    )
    assert reason in problem.reason
