"""A mistyped value is refused with its path; values that do not fit each other with a text that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python as helm
import pytest

from gateway.settings import Settings
from gateway.settings.sources import environment_name, is_secret
from tests.support.chart import (
    CHART,
    NAMESPACE,
    SCENARIOS,
    chart,
    gateway_pod,
    merged,
    notes,
    one,
    render,
    rendered,
    scenario,
    settings_of,
)

FREE = (
    "commonLabels.*",
    ".*annotations.*",
    ".*[lL]abels.*",
    ".*nodeSelector.*",
    "podAnnotations.*",
    "extraObjects.*",
    r"registry\.(backends|scenarios|prompts|tenants|apiKeys)\.[a-z0-9.-]+",
)
"""Where keys are names that somebody gives: labels, annotations, objects of others, objects of the registry."""

Path = tuple[str | int, ...]


def mistyped(value: Any, above: Path, wrong: set[tuple[str, str]]) -> Any:
    """The values with every key that is no free name once more, with a letter too many; notes where and which."""
    if isinstance(value, list):
        return [mistyped(below, (*above, index), wrong) for index, below in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    changed = {key: mistyped(below, (*above, key), wrong) for key, below in value.items()}
    for key, below in value.items():
        if not is_free((*above, key)):
            wrong.add(("".join(f"/{step}" for step in above), f"{key}Q"))
            changed[f"{key}Q"] = below
    return changed


def is_free(path: Path) -> bool:
    """Whether any name may stand there."""
    text = ".".join(str(step) for step in path if not isinstance(step, int))
    return any(re.fullmatch(pattern, text) for pattern in FREE)


@pytest.mark.parametrize("name", ["default", *SCENARIOS])
def test_every_key_that_is_mistyped_is_refused_with_its_path(name: str) -> None:
    """At every level of the default values and of every scenario."""
    values = chart().merge_values({}) if name == "default" else scenario(name)
    wrong: set[tuple[str, str]] = set()
    with pytest.raises(helm.HelmError) as refusal:
        chart().validate_schema(mistyped(values, (), wrong))
    refused = set()
    for where, keys in re.findall(r"at '(.*)': additional properties (.*) not allowed", str(refusal.value)):
        refused |= {(where, key) for key in re.findall(r"'([^']+)'", keys)}
    assert wrong - refused == set()
    assert len(wrong) > 5


def test_schema_refuses_unknown_keys_wherever_it_says_object() -> None:
    """Also where no scenario has a value: every object of the schema is closed, or says which names it takes."""

    def open_objects(node: Any, where: str) -> Iterator[str]:
        if isinstance(node, dict):
            closed = "additionalProperties" in node or "$ref" in node
            if "object" in _types(node) and not closed:
                yield where
            for key, value in node.items():
                yield from open_objects(value, f"{where}/{key}")
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from open_objects(value, f"{where}/{index}")

    assert set(open_objects(chart().schema, "")) <= {
        "/properties/global",
        "/$defs/extraObject",
        "/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    }


def _types(node: Mapping[str, Any]) -> list[str]:
    types = node.get("type", [])
    return [types] if isinstance(types, str) else list(types) if isinstance(types, list) else []


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"replicas": "two"}, "at '/replicas'"),
        ({"drain": {"seconds": 0}}, "at '/drain/seconds'"),
        ({"nameOverride": "My_Gateway"}, "at '/nameOverride'"),
        ({"fullnameOverride": "7-gateway"}, "at '/fullnameOverride'"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
        ({"redis": {"mode": "embedded"}}, "at '/redis/mode'"),
        ({"redis": {"mode": "external", "external": {"url": "redis://u:secret@r:6379"}}}, "at '/redis/external/url'"),
        ({"settings": {"LLM_GATEWAY_LOG_LEVL": "info"}}, "at '/settings'"),
        ({"settings": {"LLM_GATEWAY_ADMIN_TOKEN": "a-token-of-sixteen"}}, "at '/settings'"),
        ({"settings": {"LLM_GATEWAY_DRAIN_S": "10m"}}, "at '/settings'"),
        ({"registry": {"backends": {"a": {"provider": "echo", "modle": "x"}}}}, "at '/registry/backends/a'"),
        ({"registry": {"tenants": {"A_B": {}}}}, "at '/registry/tenants'"),
        ({"resources": {"requests": {"cpus": 1}}}, "at '/resources/requests'"),
        ({"resources": {"requests": {"memory": "1 GB"}}}, "at '/resources/requests/memory'"),
        ({"tolerations": [{"kye": "a"}]}, "at '/tolerations/0'"),
        ({"extraVolumes": [{"name": "a", "secrt": {}}]}, "at '/extraVolumes/0'"),
    ],
)
def test_wrong_values_are_refused_with_their_path(values: dict[str, Any], text: str) -> None:
    """Types, bounds, choices and what Kubernetes or the registry define."""
    with pytest.raises(helm.HelmError, match=text):
        render(values)


CUSTOM = {"registry": {"source": "kubernetes", "namespace": "llm-registry"}}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"registry": {"source": "kubernetes"}}, "registry.namespace: is needed"),
        ({"registry": {"source": "kubernetes", "namespace": NAMESPACE}}, "registry.namespace: must be another"),
        (CUSTOM | {"credentials": {"secrets": ["a"]}}, "credentials.secrets: is for"),
        ({"discovery": {"namespaces": ["a"]}}, "discovery.namespaces: needs"),
        ({"registry": {"writeKeys": True}}, "registry.writeKeys: needs"),
        ({"registry": {"source": "configMap"}}, "registry.configMap: goes together"),
        ({"registry": {"configMap": "mine"}}, "registry.configMap: goes together"),
        ({"redis": {"mode": "external"}}, "redis.external: either"),
        ({"cacheRedis": {"url": "redis://r", "urlSecret": {"name": "s"}}}, "cacheRedis: either"),
        ({"cacheRedis": {"caSecret": {"name": "s"}}}, "cacheRedis: url or urlSecret.name is needed"),
        ({"autoscaling": {"minReplicas": 9, "maxReplicas": 3}}, "autoscaling.minReplicas: must not be more"),
        ({"autoscaling": {"hpa": {"cpuUtilization": 0}}}, "autoscaling.hpa: one of"),
        ({"resources": {"requests": {"cpu": None}}}, "resources.requests.cpu: is needed"),
        ({"drain": {"seconds": 3}}, "drain.keepAliveSeconds: is a part"),
        ({"serviceMonitor": {"enabled": True, "interval": "9500ms"}}, "serviceMonitor.scrapeTimeout: must not"),
        ({"valkey": {"maxMemory": "512mb"}}, "valkey.maxMemory: must be less"),
        ({"valkey": {"maxMemory": "1gb", "resources": {"limits": {"memory": "1.07G"}}}}, "valkey.maxMemory: must be"),
        ({"valkey": {"resources": {"limits": {"memory": 402653184}}}}, "valkey.maxMemory: must be less"),
        ({"autoscaling": {"type": "keda"}, "redis": {"mode": "none"}}, "autoscaling.keda.trigger: gateway adds up"),
        ({"autoscaling": {"type": "keda"}}, "admin.readTokenSecret.name: is needed"),
        ({"autoscaling": {"type": "keda", "keda": {"trigger": "prometheus"}}}, "serverAddress: is needed"),
        ({"ingress": {"enabled": True}}, "ingress.hosts: is needed"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: is needed"),
        ({"redis": {"mode": "none"}, "test": {"tenant": "demo"}}, "test.tenant: a key for it"),
    ],
)
def test_values_that_do_not_fit_each_other(values: dict[str, Any], text: str) -> None:
    """The text begins with the value to change."""
    with pytest.raises(helm.HelmError, match=text):
        render(values)


def test_values_that_just_fit_each_other() -> None:
    """The checks above refuse no more than they have to."""
    render({"serviceMonitor": {"enabled": True, "interval": "10s"}})
    for limit in ("385Mi", "0.5Gi", "500M", 402653185):
        render({"valkey": {"resources": {"limits": {"memory": limit}}}})
    render({"valkey": {"resources": {"limits": {"memory": None}}}})


def test_chart_may_be_a_part_of_another() -> None:
    """Helm hands a parent's ``global`` down."""
    render({"global": {"anything": 1}})


@pytest.mark.parametrize("name", ["default", *SCENARIOS])
def test_each_setting_that_the_chart_makes_is_one(name: str) -> None:
    """In the ConfigMap, in variables of pods, and in the schema."""
    fields = {environment_name(field): info for field, info in Settings.model_fields.items()}
    files = {f"{each}_FILE" for each, info in fields.items() if is_secret(info)}
    known = fields.keys() | files | of_custom_resources()
    objects = rendered(name)
    variables = [each["name"] for each in gateway_pod(objects)["containers"][0].get("env", [])]
    variables += [each["name"] for each in one(objects, "Pod")["spec"]["containers"][0].get("env", [])]
    ours = {each for each in [*settings_of(objects), *variables] if each.startswith("LLM_GATEWAY_")}
    assert ours <= known


def of_custom_resources() -> set[str]:
    """Settings that a gateway with custom resources has."""
    names = ("registry_namespace", "registry_write_keys", "discovery_namespaces", "pod_name")
    return {environment_name(name) for name in names}


def test_settings_hold_what_they_were_given() -> None:
    """Numbers as they were written, large ones too, and switches as words."""
    settings = settings_of(rendered("production"))
    assert settings["LLM_GATEWAY_MAX_BODY_BYTES"] == "20971520"
    assert settings["LLM_GATEWAY_DOCS"] == "false"
    assert (
        settings_of(render({"settings": {"LLM_GATEWAY_REGISTRY_POLL_S": 0.5}}))["LLM_GATEWAY_REGISTRY_POLL_S"] == "0.5"
    )


@pytest.mark.parametrize("name", ["production", "whole addresses"])
def test_settings_that_hold_credentials_come_from_secrets(name: str) -> None:
    """Each is a file of a Secret and has a value for it; none is accepted as a plain setting."""
    plain = set((chart().schema or {})["$defs"]["settings"]["properties"])
    assert not plain & {environment_name(name) for name, info in Settings.model_fields.items() if is_secret(info)}
    own = {"urlSecret": {"name": "in-secret", "key": "address"}, "caSecret": {"name": "authorities", "key": "ca.crt"}}
    whole = {"redis": {"external": own | {"url": ""}}, "cacheRedis": own | {"url": ""}}
    objects = render(merged(scenario("production"), {} if name == "production" else whole))
    settings = settings_of(objects)
    mounted = {
        f"/etc/llm-gateway/settings/{item['path']}"
        for volume in gateway_pod(objects)["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }
    named = {value for name, value in settings.items() if name.endswith("_FILE")}
    assert named == mounted
    assert "LLM_GATEWAY_ADMIN_TOKEN_FILE" in settings
    for redis in ("LLM_GATEWAY_REDIS", "LLM_GATEWAY_CACHE_REDIS"):
        assert f"{redis}_CREDENTIALS_FILE" in settings
        assert ({f"{redis}_URL_FILE", f"{redis}_CA_FILE"} <= settings.keys()) is (name == "whole addresses")
        assert (f"{redis}_URL" in settings) is (name == "production")


def test_notes_make_the_first_key_and_the_first_call() -> None:
    """For each way to keep keys the one that works there."""
    default = notes({})
    assert "llm-gateway keys create --redis --tenant demo" in default
    assert "curl -sS --retry 9 --retry-connrefused http://127.0.0.1:8080/v1/chat/completions" in default
    assert '"model": "echo"' in default
    assert "kubectl -n llm-registry apply -f -" in notes(scenario("custom-resources"))
    assert "registry.apiKeys.NAME" in notes(scenario("minimal"))
    assert "--tenant TENANT" in notes(scenario("production"))
    assert "needs an ipBlock there" in notes({"service": {"type": "LoadBalancer"}})
    assert "needs an ipBlock there" not in default


def test_notes_tell_whom_the_network_policy_keeps_away() -> None:
    """Ports and namespaces of addresses in values that no rule lets through, and nothing where all is open."""
    backends = {
        "cloud": {"provider": "openai", "url": "https://api.example/v1"},
        "cloud-port": {"provider": "openai", "url": "https://api.example:8443/v1"},
        "vllm": {"provider": "openai", "url": "http://vllm.models.svc:8000/v1"},
        "beside": {"provider": "openai", "url": "http://vllm:8000/v1"},
    }
    sentinels = "rediss+sentinel://a.example,[::1]:6379/main"
    values = {"registry": {"backends": backends}, "redis": {"mode": "external", "external": {"url": sentinels}}}
    told = notes(values | {"cacheRedis": {"url": "redis://cache.example:6380/1"}})
    assert "- redis.external.url: port 26379 of a.example is none" in told
    assert "- cacheRedis.url: port 6380 of cache.example:6380 is none" in told
    for name in ("cloud-port", "vllm", "beside"):
        assert f"- registry.backends.{name}: neither is port" in told
    assert told.count("\n- ") == 5
    egress = {
        "redis": {"ports": [6379, 6380, 26379]},
        "backends": {"ports": [443, 8443], "namespaces": ["models", NAMESPACE]},
    }
    for policy in ({"egress": egress}, {"enabled": False}):
        assert "lets nothing out" not in notes(values | {"networkPolicy": policy})
    for name in SCENARIOS:
        assert "lets nothing out" not in notes(scenario(name))


def test_chart_names_the_version_of_the_gateway() -> None:
    """A chart is released with its gateway, and takes that image."""
    from gateway import __version__

    assert chart().metadata["appVersion"] == __version__
    assert gateway_pod(render({}))["containers"][0]["image"] == f"llm-gateway:{__version__}"
    digest = "sha256:" + "0" * 64
    pinned = render({"image": {"repository": "registry.example/llm", "digest": digest}})
    assert gateway_pod(pinned)["containers"][0]["image"] == f"registry.example/llm@{digest}"


def test_values_and_schema_are_small_enough_for_a_release() -> None:
    """Helm keeps the whole chart in a Secret of at most 1 MiB."""
    size = sum(path.stat().st_size for path in CHART.rglob("*") if path.is_file())
    assert size < 900_000, size


def test_merging_is_what_helm_does() -> None:
    """The helper of these tests and Helm agree."""
    more = {"drain": {"seconds": 100}}
    assert merged(chart().values, more)["drain"] == chart().merge_values(more)["drain"]
