"""Good documents, and the values that they become."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest

from gateway.model import (
    CachePolicy,
    EchoOptions,
    Limit,
    Oidc,
    Origin,
    Price,
    Queue,
    Service,
    SimilarityPolicy,
    Timeouts,
)
from gateway.model.credentials import AwsCredential, AwsKeys
from tests.unit.registry.folders import (
    DIGEST,
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


def test_a_backend_with_everything(folder: Folder) -> None:
    """Each field of a backend reaches its value, with units converted."""
    folder.secrets.variables["LLM_GATEWAY_SECRET_QWEN"] = b"sk-1"
    folder.write(
        "b.yaml",
        backend(
            url="https://api.example.com/v1/",
            auth={"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_QWEN"}},
            headers={"X-Team": "llm"},
            timeouts={"connect": "500ms", "firstByte": "1m", "idle": "5s", "total": "1h"},
            maxConcurrentRequests=64,
            queue={"max": 7, "wait": "5m"},
            maxOutputTokens=8192,
            price={"inputPerMillion": "0.50", "cachedInputPerMillion": "0.10", "outputPerMillion": "1.5"},
            disabled=True,
        ),
    )
    value = folder.good().backends["qwen"]
    assert value.origin == Origin(scheme="https", host="api.example.com", port=443)
    assert value.path == "/v1"
    assert value.model == "qwen-7b"
    assert value.headers == ((b"x-team", b"llm"), (b"authorization", b"Bearer sk-1"))
    assert value.timeouts == Timeouts(connect_s=0.5, first_byte_s=60.0, idle_s=5.0, total_s=3600.0)
    assert value.max_concurrent_requests == 64
    assert value.queue == Queue(max_waiting=7, wait_s=300.0)
    assert value.max_output_tokens == 8192
    assert value.price == Price(
        input_nano_usd=500_000_000, cached_input_nano_usd=100_000_000, output_nano_usd=1_500_000_000
    )
    assert value.disabled


def test_a_backend_with_nothing(folder: Folder) -> None:
    """What a backend leaves out has the documented default; cached input costs as much as input."""
    folder.write("b.yaml", backend(price={"inputPerMillion": "1", "outputPerMillion": "2"}))
    value = folder.good().backends["qwen"]
    assert value.timeouts == Timeouts(connect_s=2.0, first_byte_s=60.0, idle_s=30.0, total_s=540.0)
    assert value.max_output_tokens == 4096
    assert (value.max_concurrent_requests, value.queue) == (None, None)
    assert value.headers == ()
    assert value.price is not None
    assert value.price.cached_input_nano_usd == 10**9
    assert not value.disabled


def test_a_backend_that_is_a_service(folder: Folder) -> None:
    """In the cluster only; calls go to its endpoints under its name there, by default below /v1."""
    folder.secrets.in_cluster = True
    folder.write("b.yaml", service_backend(), service_backend("safe", port="https", scheme="https", path=""))
    plain, safe = (folder.good().backends[name] for name in ("qwen", "safe"))
    assert plain.origin == Origin(
        scheme="http",
        host="vllm.models.svc",
        port=8000,
        service=Service(namespace="models", name="vllm", port=8000),
    )
    assert safe.origin is not None
    assert (plain.path, safe.path, safe.origin.scheme, safe.origin.port) == ("/v1", "", "https", 443)
    assert safe.origin.service == Service(namespace="models", name="vllm", port="https")


def test_an_echo_backend(folder: Folder) -> None:
    """The echo provider needs nothing and takes its pace from the document."""
    folder.write(
        "b.yaml", echo(queue={}), echo("slow", echo={"firstTokenDelay": "1s", "tokenDelay": "5ms", "outputTokens": 7})
    )
    backends = folder.good().backends
    assert backends["echo"].queue == Queue(max_waiting=100, wait_s=60.0)
    assert backends["echo"].origin is None
    assert backends["echo"].echo == EchoOptions()
    assert backends["slow"].echo == EchoOptions(first_token_delay_s=1.0, token_delay_s=0.005, output_tokens=7)


def test_a_named_header_carries_the_secret_of_a_file(folder: Folder) -> None:
    """Type header sends the secret as it is under the given name."""
    folder.secrets.files["qwen/key"] = b"abc"
    auth = {"type": "header", "name": "Api-Key", "secret": {"file": "qwen/key"}}
    folder.write("b.yaml", backend(auth=auth))
    assert folder.good().backends["qwen"].headers == ((b"api-key", b"abc"),)


AWS_KEYS = {
    "type": "aws",
    "region": "eu-west-1",
    "accessKeyId": {"env": "LLM_GATEWAY_SECRET_ID"},
    "secretAccessKey": {"file": "aws"},
}


def test_keys_of_aws_sign_and_stand_in_no_header(folder: Folder) -> None:
    """Each part from where it is; without any it is the role of the process that signs. The service may be another."""
    folder.secrets.variables["LLM_GATEWAY_SECRET_ID"] = b"AKID"
    folder.secrets.files["aws"] = b"s/+="
    role = {"type": "aws", "region": "us-east-1", "service": "sagemaker"}
    folder.write("b.yaml", backend("keys", auth=AWS_KEYS), backend("role", auth=role))
    keys, other = (folder.good().backends[name] for name in ("keys", "role"))
    expected = AwsKeys(access_key_id="AKID", secret_access_key="s/+=")
    assert keys.credential == AwsCredential(region="eu-west-1", service="bedrock", keys=expected)
    assert other.credential == AwsCredential(region="us-east-1", service="sagemaker")
    assert keys.headers == other.headers == ()


@pytest.mark.parametrize("secret", [b"", b"sk\nevil: 1", b"two words", b"\xff"])
def test_a_part_of_a_key_of_aws_that_cannot_be_one_is_refused(folder: Folder, secret: bytes) -> None:
    """By its own place; its value appears nowhere."""
    folder.secrets.variables["LLM_GATEWAY_SECRET_ID"] = b"AKID"
    folder.secrets.files["aws"] = secret
    folder.write("b.yaml", backend(auth=AWS_KEYS))
    problem = folder.problem()
    assert problem.field == "spec.auth.secretAccessKey.file"
    assert problem.reason == "names a secret that is empty or no part of a key of AWS"


@pytest.mark.parametrize("secret", [b"", b"sk\nevil: 1", b"sk\r", b" sk", b"sk\x00", b"\xffsk"])
def test_a_secret_that_cannot_be_sent_is_refused_and_not_shown(folder: Folder, secret: bytes) -> None:
    """A secret that would break out of its header refuses the backend; its value appears nowhere."""
    folder.secrets.variables["LLM_GATEWAY_SECRET_QWEN"] = secret
    folder.write("b.yaml", backend(auth={"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_QWEN"}}))
    problem = folder.problem()
    assert problem.field == "spec.auth.secret.env"
    assert problem.reason == "names a secret that is empty or cannot be sent in a header"


@pytest.mark.parametrize(
    ("secret", "field"),
    [({"env": "LLM_GATEWAY_SECRET_QWEN"}, "spec.auth.secret.env"), ({"file": "qwen"}, "spec.auth.secret.file")],
)
def test_a_missing_secret_is_a_problem_at_its_field(folder: Folder, secret: dict[str, str], field: str) -> None:
    """A secret that is not there is named by the field that asks for it."""
    folder.write("b.yaml", backend(auth={"type": "bearer", "secret": secret}))
    problem = folder.problem()
    assert (problem.object, problem.field) == ("Backend/qwen", field)


def test_no_repr_shows_a_secret(folder: Folder) -> None:
    """A credential is in no repr of anything that a load returns."""
    folder.secrets.variables["LLM_GATEWAY_SECRET_QWEN"] = b"sk-do-not-show"
    folder.write("b.yaml", backend(auth={"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_QWEN"}}), scenario())
    result = folder.load()
    assert result.snapshot.backends["qwen"].headers == ((b"authorization", b"Bearer sk-do-not-show"),)
    assert "sk-do-not-show" not in repr(result)


def test_a_scenario_with_everything(folder: Folder) -> None:
    """Each field of a scenario reaches its value; parameters are raw JSON by field."""
    folder.write("b.yaml", backend(), backend("gpt"), echo(), prompt())
    folder.write(
        "s.yaml",
        scenario(
            description="Help",
            aliases=["gpt-4o", "GPT 4 (über)"],
            prompt="support.v2",
            parameters={
                "defaults": {"temperature": 0.3, "stop": ["a"], "user": "é", "seed": None},
                "overrides": {"logprobs": False},
                "maxOutputTokens": 100,
                "allow": ["temperature", "Foo"],
                "deny": ["Tools"],
                "checkSampling": True,
            },
            promptPlacement="developer",
            answer={"schema": {"type": "object", "enum": [None, {}]}, "retry": True},
            targets=[{"backend": "qwen", "weight": 90}, {"backend": "gpt", "weight": 0}],
            fallbacks=["echo"],
            cache={"mode": "exact", "ttl": "1h", "maxEntryBytes": 2048, "ignore": ["user"]},
            disabled=True,
        ),
    )
    snapshot = folder.good()
    value = snapshot.scenarios["chat"]
    assert value.description == "Help"
    assert value.aliases == ("gpt-4o", "GPT 4 (über)")
    assert value.prompt is not None
    assert value.prompt.parts == ("Be kind.",)
    defaults = {"temperature": b"0.3", "stop": b'["a"]', "user": '"é"'.encode(), "seed": b"null"}
    assert value.parameters.defaults == defaults
    assert value.parameters.overrides == {"logprobs": b"false"}
    assert value.parameters.max_output_tokens == 100
    limits = {"max_tokens", "max_completion_tokens"}
    always = {"model", "messages", "stream", "stream_options"} | limits
    assert value.parameters.allow == frozenset(always | {"temperature", "Foo"})
    assert value.parameters.deny == frozenset({"tools"})
    assert value.parameters.check_sampling
    assert value.prompt_placement == "developer"
    assert value.answer is not None
    assert value.answer.schema == b'{"type":"object","enum":[null,{}]}'
    assert value.answer.schema in value.answer.response_format
    assert value.answer.retry
    assert [(target.backend, target.weight) for target in value.targets] == [
        (snapshot.backends["qwen"], 90),
        (snapshot.backends["gpt"], 0),
    ]
    assert value.fallbacks == (snapshot.backends["echo"],)
    assert value.cache == CachePolicy(ttl_s=3600.0, max_entry_bytes=2048, ignored=frozenset({"user"}))
    assert value.disabled
    assert value.created == int(folder.now)


def test_a_scenario_with_one_target_needs_no_weight(folder: Folder) -> None:
    """A weight left out is one; a cache left out is none."""
    folder.write("x.yaml", backend(), scenario(targets=[{"backend": "qwen"}]))
    value = folder.good().scenarios["chat"]
    assert value.targets[0].weight == 1
    assert value.cache is None


def test_a_tenant_with_everything(folder: Folder) -> None:
    """Limits, networks and names of a tenant reach their values; the scenario's access has its say."""
    folder.write("b.yaml", backend(), scenario(aliases=["gpt"]), scenario("closed", access={"tenants": ["other"]}))
    folder.write("other.yaml", tenant("other"))
    folder.write(
        "t.yaml",
        tenant(
            displayName="Acme Corp",
            ipAllowList=["10.0.0.0/8", "::1"],
            oidc={"issuer": "https://idp.example", "audience": "llm", "claim": "tenant", "value": "acme"},
            limits=[
                {"unit": "tokens", "per": "minute", "amount": 200000, "burst": 50000},
                {"unit": "inputTokens", "per": "hour", "amount": 5, "scenario": "chat", "mode": "shadow"},
                {"unit": "concurrency", "amount": 50},
                {"unit": "requests", "per": "day", "amount": 7, "name": "daily"},
                {"unit": "cost", "per": "month", "amount": "400.5", "onRedisLoss": "closed"},
            ],
        ),
    )
    value = folder.good().tenants["acme"]
    assert value.display_name == "Acme Corp"
    assert set(value.scenarios) == {"chat", "gpt"}
    assert value.scenarios["gpt"] is value.scenarios["chat"]
    assert value.ip_allow_list == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert value.oidc == Oidc(issuer="https://idp.example", audience="llm", claim="tenant", value="acme")
    assert value.limits == (
        Limit(name="tokens-per-minute", unit="tokens", per="minute", amount=200000, burst=50000),
        Limit(
            name="input-tokens-per-hour-chat", unit="inputTokens", per="hour", amount=5, scenario="chat", mode="shadow"
        ),
        Limit(name="concurrency", unit="concurrency", per=None, amount=50),
        Limit(name="daily", unit="requests", per="day", amount=7),
        Limit(name="cost-per-month", unit="cost", per="month", amount=400_500_000_000, on_redis_loss="closed"),
    )


def test_omitted_allow_lists_allow_nobody(folder: Folder) -> None:
    """A tenant without scenarios may use none; a scenario without access is for nobody."""
    folder.write("b.yaml", backend(), scenario(), scenario("private", access={}))
    folder.write(
        "t.yaml", tenant("some"), with_field(tenant("none"), "spec", {}), tenant("named", scenarios=["private"])
    )
    tenants = folder.good().tenants
    assert set(tenants["some"].scenarios) == {"chat"}
    assert tenants["none"].scenarios == {}
    assert tenants["named"].scenarios == {}
    assert tenants["none"].ip_allow_list is None


def test_a_key_with_everything(folder: Folder) -> None:
    """Every digest of a key opens the same tenant, each until its own end."""
    folder.write("t.yaml", backend(), scenario(), tenant())
    digests = [{"sha256": DIGEST, "expiresAt": "2027-01-01T00:00:00Z"}, {"sha256": "CD" * 32}]
    limit = {"unit": "concurrency", "amount": 1}
    folder.write(
        "k.yaml",
        api_key(digests=digests, scenarios=["chat"], limits=[limit]),
        api_key("all", digests=[{"sha256": "ef" * 32}], scenarios=["*"]),
    )
    snapshot = folder.good()
    first, second = snapshot.keys[bytes.fromhex(DIGEST)], snapshot.keys[b"\xcd" * 32]
    assert first.principal is second.principal
    assert first.principal.tenant is snapshot.tenants["acme"]
    assert first.principal.key.name == "acme-ci"
    assert first.principal.key.scenarios == frozenset({"chat"})
    assert first.principal.key.limits[0].name == "concurrency"
    assert first.expires_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert second.expires_at is None
    assert snapshot.keys[b"\xef" * 32].principal.key.scenarios is None


def test_disabled_tenants_and_keys_are_compiled_as_such(folder: Folder) -> None:
    """The on-call switch is in the values that authentication reads."""
    folder.write("t.yaml", tenant(disabled=True), api_key(disabled=True))
    snapshot = folder.good()
    principal = snapshot.keys[bytes.fromhex(DIGEST)].principal
    assert principal.tenant.disabled
    assert principal.key.disabled


def test_a_bare_prompt_file_is_the_prompt_of_its_path(folder: Folder) -> None:
    """prompts/NAME/VERSION.yaml is NAME.VERSION, whether the version is text or a number."""
    folder.write("prompts/summarize/v1.yaml", "version: v1\ninput_vars: [context]\ntemplate: 'Sum: {context}'")
    folder.write("prompts/summarize/2.yml", "version: 2\ntemplate: Short.")
    folder.write("prompts/whole/doc.yaml", prompt("other.v1"))
    folder.write(
        "s.yaml",
        backend(),
        *(scenario(name, prompt=of) for name, of in (("a", "summarize.v1"), ("b", "summarize.2"), ("c", "other.v1"))),
    )
    prompts = {name: item.prompt for name, item in folder.good().scenarios.items()}
    assert prompts["a"] is not None
    assert prompts["a"].parts == ("Sum: ", "context", "")
    assert prompts["a"].input_vars == ("context",)
    assert prompts["b"] is not None
    assert prompts["c"] is not None


def test_kubernetes_metadata_is_accepted(folder: Folder) -> None:
    """Labels, annotations and a namespace may stand in a file and change nothing."""
    document = with_field(backend(), "metadata.labels", {"app.kubernetes.io/part-of": "llm", "team": ""})
    document = with_field(document, "metadata.annotations", {"example.com/note": "any text\nat all"})
    folder.write("b.yaml", with_field(document, "metadata.namespace", "models"))
    assert "qwen" in folder.good().backends


def test_nothing_that_has_its_effect_is_warned_of(folder: Folder) -> None:
    """Caches, limits and token issuers have it."""
    limit = [{"unit": "concurrency", "amount": 1}]
    oidc = {"issuer": "https://idp.example", "audience": "llm", "claim": "tenant", "value": "b"}
    folder.write("x.yaml", backend(), scenario(cache={"mode": "exact"}))
    folder.write("t.yaml", tenant("b", limits=limit, oidc=oidc), tenant("a", limits=limit), tenant("c"))
    folder.write("k.yaml", api_key(tenant="a", limits=limit))
    assert folder.load().warnings == ()


def test_a_cache_of_similar_questions(folder: Folder) -> None:
    """Its embeddings come from a backend that has some; the exact answers do not depend on whose they are."""
    spec = {"mode": "semantic", "embeddings": {"backend": "qwen", "timeout": "2s"}, "threshold": 0.9}
    folder.write("x.yaml", backend(), echo(), scenario(cache=spec), scenario("plain", cache={"mode": "exact"}))
    snapshot = folder.good()
    policy = snapshot.scenarios["chat"].cache
    assert policy is not None
    assert policy.similar == SimilarityPolicy(backend=snapshot.backends["qwen"], timeout_s=2.0, threshold=0.9)
    for name, reason in (("echo", "its provider must be openai"), ("nothing", "nothing")):
        folder.write("y.yaml", scenario("other", cache={"mode": "semantic", "embeddings": {"backend": name}}))
        (problem,) = folder.load().problems
        assert problem.field == "spec.cache.embeddings.backend"
        assert reason in problem.reason
