"""Every pod is restricted, nothing holds a credential, and no policy opens more than it says."""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import helm_python as helm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.chart import (
    SCENARIOS,
    Object,
    chart,
    gateway_pod,
    kinds,
    merged,
    notes,
    one,
    pod_specs,
    render,
    rendered,
    scenario,
)

ALL = ("default", *SCENARIOS)
PODS = [(name, pod) for name in ALL for pod in pod_specs(rendered(name))]
CIDRS = ("cidr", "dnsCidr")
METADATA = ipaddress.ip_address("169.254.169.254")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def test_every_scenario_has_the_pods_that_are_judged() -> None:
    """The gateway and the test in each; Valkey where it is bundled."""
    for name in ALL:
        found = {kind for kind, _, _ in (pod.partition("/") for pod in pod_specs(rendered(name)))}
        bundled = name in {"default", "embedded-redis", "keda", "custom-resources", "everything"}
        assert found == {"Deployment", "Pod"} | ({"StatefulSet"} if bundled else set())


@pytest.mark.parametrize(("name", "pod"), PODS)
def test_pod_is_restricted(name: str, pod: str) -> None:
    """Every rule of the restricted Pod Security Standard, and what is asked for beyond it."""
    spec = pod_specs(rendered(name))[pod]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0, "a number, so that Kubernetes can see that it is not root"
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "windowsOptions", "seLinuxOptions"} & context.keys()
    for volume in spec.get("volumes", []):
        assert (volume.keys() - {"name"}) <= VOLUMES, volume
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not own.get("privileged", False)
        assert not {"runAsUser", "runAsNonRoot", "seccompProfile", "procMount"} & own.keys()
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
    assert spec["enableServiceLinks"] is False
    token = name == "custom-resources" and pod.startswith("Deployment/")
    assert spec["automountServiceAccountToken"] is token


@pytest.mark.parametrize("name", ALL)
def test_service_account_is_used_with_custom_resources_only(name: str) -> None:
    """Elsewhere there is no Role, and nobody gets a token of the account by default."""
    objects = rendered(name)
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert (not {"Role", "RoleBinding"} & kinds(objects)) is (name != "custom-resources")
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds(objects)


def test_roles_are_the_least_that_custom_resources_need() -> None:
    """Read the five kinds, write their status, hold one Lease, read Secrets there; EndpointSlices where it is told."""
    objects = rendered("custom-resources")
    roles = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Role"}
    read, plurals = ["get", "list", "watch"], ["backends", "scenarios", "prompts", "tenants", "apikeys"]
    group, lease = ["llmgateway.dev"], {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    assert roles["llm-gw-llm-gateway-registry"]["rules"] == [
        {"apiGroups": group, "resources": plurals, "verbs": read},
        {"apiGroups": group, "resources": [f"{each}/status" for each in plurals], "verbs": ["get", "patch", "update"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": read},
        lease | {"verbs": ["create"]},
        lease | {"resourceNames": ["llm-gateway-registry"], "verbs": ["get", "update", "patch"]},
    ]
    keys = roles["llm-gw-llm-gateway-keys"]["rules"]
    assert keys == [{"apiGroups": group, "resources": ["apikeys"], "verbs": ["create", "update", "patch", "delete"]}]
    slices = roles["llm-gw-llm-gateway-discovery"]["rules"]
    assert slices == [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read}]
    places = {name: role["metadata"]["namespace"] for name, role in roles.items()}
    assert sorted(places.values()) == ["llm-backends", "llm-registry", "llm-registry"]
    for binding in [each for each in objects if each["kind"] == "RoleBinding"]:
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert binding["metadata"]["namespace"] == places[binding["metadata"]["name"]]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "gw-llm-gateway", "namespace": "llm"}]


def test_keys_are_not_written_unless_asked_for() -> None:
    """The Role is one of its own."""
    objects = render(merged(scenario("custom-resources"), {"registry": {"writeKeys": False}}))
    assert not [each for each in objects if each["metadata"]["name"].endswith("-keys")]


@pytest.mark.parametrize("name", ALL)
def test_credentials_are_mounted_files_and_stand_nowhere(name: str) -> None:
    """No Secret becomes a variable, and no object but the generated Secret holds a password."""
    for pod, spec in pod_specs(rendered(name)).items():
        for container in spec["containers"]:
            text = json.dumps([container.get("env", []), container.get("envFrom", []), container.get("args", [])])
            assert "secretKeyRef" not in text, pod
            assert "secretRef" not in text, pod
    for each in rendered(name):
        generated = each["kind"] == "Secret"
        assert not generated or name in {"default", "embedded-redis"}
        assert generated or not re.search(r"redis://[^/\"]*:[^/\"]*@", json.dumps(each))


def test_secret_files_are_for_the_group_of_the_pod_only() -> None:
    """0440 with ``fsGroup``: the process reads them as a member of that group."""
    for name in ALL:
        for pod, spec in pod_specs(rendered(name)).items():
            for volume in spec.get("volumes", []):
                source = volume.get("secret") or volume.get("projected")
                assert source is None or source["defaultMode"] == 0o440, pod
            assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]


def test_generated_password_is_long_and_used_by_both_sides() -> None:
    """Valkey and the gateway read one key of one Secret."""
    import base64

    objects = rendered("default")
    secret = one(objects, "Secret")
    assert re.fullmatch(rb"[A-Za-z0-9]{32}", base64.b64decode(secret["data"]["password"]))
    sources = json.dumps([spec["volumes"] for spec in pod_specs(objects).values()])
    assert sources.count(secret["metadata"]["name"]) >= 3
    assert base64.b64decode(secret["data"]["password"]).decode() not in notes({})


# -- network policies ------------------------------------------------------------------------------------------------


def policies(objects: list[Object]) -> dict[str, Object]:
    """The specs of policies by name."""
    return {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "NetworkPolicy"}


def allowed(spec: Object) -> Iterator[Any]:
    """The networks that a policy lets out to, as a predicate over addresses."""
    for rule in spec.get("egress", []):
        assert rule.get("to"), "a rule without peers opens everything"
        for peer in rule["to"]:
            assert len(peer) >= 1, "an empty peer"
            if "ipBlock" in peer:
                block = peer["ipBlock"]
                inside = ipaddress.ip_network(block["cidr"])
                holes = [ipaddress.ip_network(each) for each in block.get("except", [])]
                assert all(hole.subnet_of(inside) for hole in holes), "Kubernetes refuses a hole outside"  # type: ignore[arg-type]
                yield (
                    lambda address, inside=inside, holes=holes: (
                        address in inside and not any(address in hole for hole in holes)
                    )
                )


@pytest.mark.parametrize("name", [each for each in ALL if each != "minimal"])
def test_no_policy_reaches_the_metadata_server(name: str) -> None:
    """169.254.169.254 and its like over IPv6 give a cloud's credentials to whoever asks."""
    found = policies(rendered(name))
    assert len(found) >= 2
    for policy, spec in found.items():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        for reaches in allowed(spec):
            assert not reaches(METADATA), policy
    if name == "default":
        networks = list(allowed(found["gw-llm-gateway"]))
        assert any(reaches(ipaddress.ip_address("203.0.113.7")) for reaches in networks), "and backends are reached"
        assert not any(reaches(ipaddress.ip_address("fd00:ec2::254")) for reaches in networks)


@cache
def network_patterns() -> dict[str, str]:
    """What the schema accepts as networks."""
    defined = (chart().schema or {})["$defs"]
    return {kind: defined[kind]["pattern"] for kind in CIDRS}


@settings(max_examples=1000, deadline=None)
@given(number=st.integers(0, 2**32 - 1), near=st.booleans(), length=st.integers(0, 32), kind=st.sampled_from(CIDRS))
def test_no_accepted_network_holds_it(number: int, near: bool, length: int, kind: str) -> None:
    """Whatever network values name: it is refused, does not hold the metadata server, or is 0.0.0.0/0 with its hole."""
    network = ipaddress.ip_network((int(METADATA) if near else number, length), strict=False)
    accepted = re.search(network_patterns()[kind], str(network))
    assert not accepted or METADATA not in network or str(network) == "0.0.0.0/0", network


def test_usual_networks_are_accepted() -> None:
    """The test above does not pass because everything is refused."""
    usual = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "172.16.0.0/12", "192.168.7.0/24", "168.63.1.1/32", "2001:db8::/32"]
    render({"networkPolicy": {"egress": {"backends": {"cidrs": usual}, "dns": {"cidrs": ["169.254.20.10/32"]}}}})
    for wrong in ("169.254.0.0/16", "128.0.0.0/1", "169.0.0.0/8", "10.0.0.0", "any"):
        with pytest.raises(helm.HelmError, match="networkPolicy/egress/backends/cidrs/0"):
            render({"networkPolicy": {"egress": {"backends": {"cidrs": [wrong]}}}})


def test_ports_are_open_to_whom_they_belong() -> None:
    """Data to chosen namespaces and the test; management to monitoring, and to KEDA where KEDA asks."""
    objects = rendered("keda")
    data, management = policies(objects)["gw-llm-gateway"]["ingress"]
    assert [port["port"] for port in data["ports"]] == [8080]
    assert data["from"][1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert [port["port"] for port in management["ports"]] == [8081]
    names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in management["from"]]
    assert names == ["monitoring", "keda"]
    default = policies(rendered("default"))["gw-llm-gateway"]["ingress"][1]
    assert len(default["from"]) == 1
    chosen = policies(rendered("production"))["gw-llm-gateway"]["ingress"][0]["from"]
    assert {} not in [peer.get("namespaceSelector") for peer in chosen]


def test_valkey_talks_to_nobody_and_hears_the_gateway_and_the_test() -> None:
    """Its policy names two kinds of pods and no egress."""
    spec = policies(rendered("default"))["gw-llm-gateway-valkey"]
    assert spec["egress"] == []
    (rule,) = spec["ingress"]
    peers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]]
    assert peers == ["gateway", "test"]


def test_a_redis_of_the_cache_is_reached_beside_the_bundled_one() -> None:
    """An own Redis for kept answers is none of the chart's: its networks and ports are those of an external one."""
    where = {"networkPolicy": {"egress": {"redis": {"cidrs": ["10.7.0.0/16"], "ports": [6380]}}}}
    wanted = {"to": [{"ipBlock": {"cidr": "10.7.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 6380}]}
    for mode, own in itertools.product(
        ("bundled", "none", "external"), ({"url": "redis://cache.example:6380"}, {"urlSecret": {"name": "cache"}})
    ):
        redis = {"mode": mode} | ({"external": {"url": "redis://redis.example:6380"}} if mode == "external" else {})
        found = policies(render({"cacheRedis": own, "redis": redis, **where}))
        assert found["gw-llm-gateway"]["egress"].count(wanted) == 1
    assert wanted not in policies(render(where))["gw-llm-gateway"]["egress"], "and with the bundled one alone it is not"


def test_api_server_is_reached_with_custom_resources_only() -> None:
    """Its networks and ports are values."""
    more = {"networkPolicy": {"egress": {"apiServer": {"cidrs": ["10.96.0.1/32"], "ports": [6443]}}}}
    wanted = {"to": [{"ipBlock": {"cidr": "10.96.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 6443}]}
    assert wanted in policies(render(merged(scenario("custom-resources"), more)))["gw-llm-gateway"]["egress"]
    assert wanted not in policies(render(more))["gw-llm-gateway"]["egress"]


def test_a_value_is_removed_with_null() -> None:
    """OpenShift chooses users and groups itself."""
    values = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    context = gateway_pod(render(values))["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
    assert context["runAsNonRoot"] is True
