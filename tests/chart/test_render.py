"""Every scenario lints, renders the same twice, and is what Kubernetes 1.34 to 1.37 accept."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.support.chart import (
    CHART,
    RELEASE,
    SCENARIOS,
    Object,
    chart,
    manifests,
    merged,
    one,
    parse,
    pod_of,
    render,
    rendered,
    scenario,
)

VERSIONS = ("1.34", "1.35", "1.36", "1.37")
ALL = ("default", *SCENARIOS)
OF_OTHERS = {"HTTPRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"}
GENERATES_PASSWORD = {"default", "embedded-redis"}


@pytest.fixture(scope="module", autouse=True)
def kept_schemas() -> Any:
    """Reads each schema once instead of once per object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


def test_the_scenarios_that_are_installed_are_there() -> None:
    """CI installs each of them on a cluster."""
    wanted = {"minimal", "production", "embedded-redis", "keda", "custom-resources", "everything"}
    assert set(SCENARIOS) == wanted


@pytest.mark.parametrize("name", ALL)
def test_each_scenario_is_tested_by_a_real_call(name: str) -> None:
    """For a tenant or with a key; that a call without one is refused shows little."""
    (container,) = one(rendered(name), "Pod")["spec"]["containers"]
    names = {argument.partition("=")[0] for argument in container["args"][1:]}
    assert names in ({"--url", "--wait", "--model", way} for way in ("--tenant", "--key-file"))


@pytest.mark.parametrize("name", ALL)
def test_lints_strictly(name: str) -> None:
    """``helm lint --strict`` has nothing to say but that there is no icon."""
    report = helm.lint(CHART, scenario(name), strict=True, namespace="llm")
    assert report["errors"] == []
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


NAMES = (
    "namespace", "kubernetes.io/metadata.name", "name", "secretName", "serviceAccountName", "priorityClassName",
    "storageClassName", "ingressClassName", "loadBalancerClass", "serviceName",
)  # fmt: skip


def texts(node: Any) -> Any:
    """Yield whatever stands where Kubernetes wants a name or the value of a label."""
    if isinstance(node, list):
        for each in node:
            yield from texts(each)
    elif isinstance(node, dict):
        yield from (node[name] for name in NAMES if name in node and not isinstance(node[name], dict))
        for part in ("labels", "matchLabels"):
            yield from (node.get(part) or {}).values()
        yield from node.get("matchNames", [])
        for each in node.values():
            yield from texts(each)


@pytest.mark.parametrize("name", ["custom-resources", "everything"])
def test_names_of_digits_stay_names(name: str) -> None:
    """A namespace may be called 4711, which YAML without quotes takes for a number and an API server refuses."""
    values = scenario(name)
    more: dict[str, Any] = {"networkPolicy": {"egress": {"backends": {"namespaces": ["815"]}}}}
    if name == "custom-resources":
        more |= {"registry": {"namespace": "42"}, "discovery": {"namespaces": ["43"]}}
    rendered_texts = chart().render(merged(values, more), name="12", namespace="4711")
    found = list(texts(list(parse(rendered_texts))))
    assert {"4711", "815", "12"} <= set(found)
    assert [each for each in found if not isinstance(each, str)] == []


def test_a_label_that_several_values_name_is_there_once() -> None:
    """Selectors keep theirs; the value that is nearer to an object counts before commonLabels."""
    usual = {"app.kubernetes.io/part-of": "platform", "app.kubernetes.io/version": "7", "release": "common"}
    values = {
        "commonLabels": usual | {"app.kubernetes.io/component": "other"},
        "podLabels": {"release": "pods"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podAnnotations": {"checksum/settings": "mine"},
    }
    objects = render(values)
    deployment = one(objects, "Deployment")
    pods = deployment["spec"]["template"]["metadata"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pods["labels"].items()
    assert pods["labels"].items() >= {"app.kubernetes.io/part-of": "platform", "release": "pods"}.items()
    assert deployment["metadata"]["labels"].items() >= usual.items()
    assert deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    assert one(objects, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    assert pods["annotations"]["checksum/settings"] != "mine"


def numbered(number: int) -> dict[str, str]:
    """A reference to a Secret whose name and key are digits."""
    return {"name": str(number), "key": "7"}


def test_names_of_secrets_and_classes_of_digits_stay_names() -> None:
    """All that values name: ``1e3`` and ``true`` are names, too, and YAML would read a number and a switch."""
    own = {"urlSecret": numbered(21), "credentialsSecret": numbered(22), "caSecret": numbered(23)}
    values = merged(
        scenario("everything"),
        {
            "nameOverride": "10",
            "imagePullSecrets": [{"name": "12"}],
            "registry": {"source": "configMap", "configMap": "13"},
            "credentials": {"secrets": ["14", "true"]},
            "admin": {"tokenSecret": numbered(15), "readTokenSecret": numbered(16)},
            "redis": {"mode": "external", "external": own},
            "cacheRedis": own,
            "service": {"type": "LoadBalancer", "loadBalancerClass": "17"},
            "ingress": {"className": "18"},
            "priorityClassName": "19",
            "serviceAccount": {"name": "1e3"},
            "test": {"keySecret": numbered(20), "model": "31"},
            "autoscaling": {"keda": {"trigger": "gateway"}},
        },
    )
    bundled = {"persistence": {"storageClassName": "24"}, "existingSecret": numbered(25), "priorityClassName": "26"}
    objects = [*render(values), *render(merged(scenario("everything"), {"valkey": bundled}))]
    found = list(texts(objects))
    assert {"10", *map(str, range(12, 27)), "true", "1e3"} <= set(found)
    assert [each for each in found if not isinstance(each, str)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_object(version: str) -> None:
    """Fields, types and required fields by the strict schemas of each version."""
    unknown = set()
    for text in {json.dumps(each, sort_keys=True) for name in ALL for each in rendered(name)}:
        each = json.loads(text)
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(each["kind"])
    assert unknown == OF_OTHERS, "kinds of other projects, which Kubernetes has no schema for"


def test_a_wrong_object_would_be_found() -> None:
    """The check above can fail."""
    deployment = json.loads(json.dumps(one(rendered("minimal"), "Deployment")))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", ALL)
def test_renders_the_same_bytes_twice(name: str) -> None:
    """Nothing but a generated password differs, and that is generated where nobody names a Secret."""
    first, second = (chart().render(scenario(name), name=RELEASE, namespace="llm") for _ in range(2))
    different = {path for path in first if first[path] != second[path]}
    assert different == ({"llm-gateway/templates/secret-valkey.yaml"} if name in GENERATES_PASSWORD else set())
    assert first.keys() == second.keys()


@pytest.mark.parametrize("name", ALL)
def test_objects_have_names_namespaces_and_labels(name: str) -> None:
    """No two objects are one, each says where it is, and each of ours can be found by its labels."""
    objects = rendered(name)
    ids = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(set(ids)) == len(ids)
    extras = len(scenario(name).get("extraObjects", []))
    ours = [each for each in objects if "labels" in each["metadata"]]
    assert len(objects) - len(ours) == extras
    for each in ours:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE, each
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert len(each["metadata"]["name"]) <= 63 or each["kind"] in {"Role", "RoleBinding"}
        assert each["metadata"]["namespace"] in {"llm", "llm-registry", "llm-backends"}


def test_each_template_makes_one_object() -> None:
    """One object per file; those that a list of values repeats are of one kind."""
    for name in ALL:
        for path, text in manifests(scenario(name)).items():
            found = list(parse({path: text}))
            assert len({each["kind"] for each in found}) <= 1 or path.endswith("extraobjects.yaml"), path
            assert len(found) <= 1 or path.rpartition("/")[2].startswith(("roles-", "rolebindings-", "extraobjects"))


@pytest.mark.parametrize("release", ["llm-gateway", "a" * 53, "x"])
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    """The longest release name leaves room for every suffix; a release called like the chart is not called so twice."""
    objects = list(parse(chart().render(scenario("everything"), name=release, namespace="llm")))
    names = {each["metadata"]["name"] for each in objects}
    assert all(len(name) <= 63 for name in names)
    assert not any("llm-gateway-llm-gateway" in name for name in names)


def test_labels_of_pods_do_not_change_with_the_chart() -> None:
    """A new version of the chart alone restarts nothing."""
    for each in rendered("everything"):
        pod = pod_of(each)
        if pod is not None and each["kind"] != "Pod":
            text = json.dumps(pod["metadata"])
            assert "helm.sh/chart" not in text
            assert "app.kubernetes.io/version" not in text


def selected(selector: dict[str, str], objects: list[Object]) -> set[str]:
    """Which pods a selector takes, by kind and name."""
    found = set()
    for each in objects:
        pod = pod_of(each)
        if pod is not None and selector.items() <= pod["metadata"]["labels"].items():
            found.add(each["kind"])
    return found


@pytest.mark.parametrize("name", ALL)
def test_selectors_take_the_pods_that_they_mean(name: str) -> None:
    """The Services, the budget and the policies find the gateway's pods and no others; likewise Valkey's."""
    objects = rendered(name)
    for each in objects:
        wanted = {"StatefulSet"} if each["metadata"]["name"].endswith("-valkey") else {"Deployment"}
        wanted = {"Pod"} if each["metadata"]["name"].endswith("-test") else wanted
        if each["kind"] == "Service":
            assert selected(each["spec"]["selector"], objects) == wanted
        elif each["kind"] in {"PodDisruptionBudget", "Deployment", "StatefulSet"}:
            assert selected(each["spec"]["selector"]["matchLabels"], objects) == wanted
        elif each["kind"] == "NetworkPolicy":
            assert selected(each["spec"]["podSelector"]["matchLabels"], objects) == wanted
        elif each["kind"] == "ServiceMonitor":
            labels = each["spec"]["selector"]["matchLabels"].items()
            found = [one for one in objects if one["kind"] == "Service" and labels <= one["metadata"]["labels"].items()]
            assert [one["spec"]["clusterIP"] for one in found] == ["None"]


def test_management_service_is_headless_and_has_pods_that_drain() -> None:
    """A draining pod is scraped to its end; the data Service has neither."""
    objects = rendered("production")
    management = one(objects, "Service", "-management")["spec"]
    assert management["clusterIP"] == "None"
    assert management["publishNotReadyAddresses"] is True
    assert [port["port"] for port in management["ports"]] == [8081]
    data = one(objects, "Service", "-gateway")["spec"]
    assert "publishNotReadyAddresses" not in data
    assert [port["targetPort"] for port in data["ports"]] == ["http"]


def test_optional_objects_are_switched_by_values_only() -> None:
    """What a cluster can do is never asked: a render without a cluster is what is installed."""
    for path in sorted((CHART / "templates").rglob("*")):
        if path.is_file():
            assert ".Capabilities" not in path.read_text(encoding="utf-8"), path.name


def test_extra_objects_are_templates() -> None:
    """As objects and as text."""
    objects = rendered("everything")
    assert one(objects, "ConfigMap", "gw-extra")["data"] == {"namespace": "llm"}
    assert one(objects, "ConfigMap", "-text")["metadata"]["name"] == "gw-gateway-text"


def test_registry_files_are_one_object_each() -> None:
    """A mistake in one object leaves the others alone, and a key of a ConfigMap has no slash."""
    data = one(rendered("everything"), "ConfigMap", "-registry")["data"]
    for key, text in data.items():
        (document,) = yaml.safe_load_all(text)
        assert key == f"{document['kind'].lower()}.{document['metadata']['name']}.yaml"
    assert {"backend.echo.yaml", "prompt.translate.v1.yaml", "apikey.demo-ci.yaml", "tenant.demo.yaml"} <= data.keys()
    own = one(rendered("production"), "ConfigMap", "-registry")["data"]
    assert own.keys() == {"backend.model.yaml", "scenario.chat.yaml", "tenant.acme.yaml"}
    assert render({"registry": {"example": False}}), "an empty registry is one"
