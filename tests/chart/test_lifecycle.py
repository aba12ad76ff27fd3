"""How pods start, end and are counted: one value for the drain, one autoscaler, no restart without need."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.app.arbiter import MARGIN_S
from gateway.settings.units import parse_duration
from tests.support.chart import (
    SCENARIOS,
    gateway_pod,
    kinds,
    merged,
    one,
    render,
    rendered,
    scenario,
    settings_of,
)

ALL = ("default", *SCENARIOS)
CLUSTER_AUTOSCALER_S = 600
NATIVE_SLEEP = "sleep"


@pytest.mark.parametrize("name", ALL)
def test_grace_is_the_sum_of_what_happens_in_it(name: str) -> None:
    """preStop, the drain with gunicorn's margin and what is left for the end fit into the grace period exactly."""
    objects = rendered(name)
    spec = gateway_pod(objects)
    (container,) = spec["containers"]
    assert container["lifecycle"]["preStop"].keys() == {NATIVE_SLEEP}, "native: the image has no shell"
    sleep_s = container["lifecycle"]["preStop"][NATIVE_SLEEP]["seconds"]
    drain_s = parse_duration(settings_of(objects)["LLM_GATEWAY_DRAIN_S"])
    assert spec["terminationGracePeriodSeconds"] == sleep_s + drain_s + 15
    assert MARGIN_S < 15, "the main process kills its workers before Kubernetes kills it"
    assert spec["terminationGracePeriodSeconds"] < CLUSTER_AUTOSCALER_S
    told_s = parse_duration(settings_of(objects)["LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S"])
    assert 0 < told_s < drain_s, "connections that are kept alive hear of the end before it comes"


def test_default_drain_is_nine_and_a_half_minutes() -> None:
    """A call of nine minutes ends in peace, and the sum stays under ten."""
    objects = rendered("default")
    assert settings_of(objects)["LLM_GATEWAY_DRAIN_S"] == "570s"
    assert gateway_pod(objects)["terminationGracePeriodSeconds"] == 595


def test_all_three_come_from_one_value() -> None:
    """A longer drain lengthens the grace period and the gateway's own."""
    objects = render({"drain": {"seconds": 1200}})
    assert settings_of(objects)["LLM_GATEWAY_DRAIN_S"] == "1200s"
    assert gateway_pod(objects)["terminationGracePeriodSeconds"] == 1225


def test_rollouts_never_take_a_pod_away_first() -> None:
    """A new pod is ready for a while before an old one ends."""
    spec = one(rendered("default"), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}
    assert spec["minReadySeconds"] > 0
    budget = one(rendered("default"), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_probes_ask_the_management_port() -> None:
    """Liveness is about the process only; readiness notices within seconds; a start may take its time."""
    (container,) = gateway_pod(rendered("default"))["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "management": 8081}
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    for name in paths:
        assert container[f"{name}Probe"]["httpGet"]["port"] == "management"
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 120


@pytest.mark.parametrize("name", ALL)
def test_there_is_one_autoscaler_or_a_number_of_replicas(name: str) -> None:
    """Never both autoscalers, and no number that an upgrade would set back."""
    objects = rendered(name)
    scalers = {"HorizontalPodAutoscaler", "ScaledObject"} & kinds(objects)
    wanted = {"hpa": {"HorizontalPodAutoscaler"}, "keda": {"ScaledObject"}, "none": set()}
    assert scalers == wanted[scenario(name).get("autoscaling", {}).get("type", "hpa")]
    assert ("replicas" in one(objects, "Deployment")["spec"]) is (not scalers)


BEHAVIOUR: dict[str, Any] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    },
}


def test_hpa_goes_by_cpu_and_by_requests_in_flight_where_asked() -> None:
    """Up at once, down by one pod a minute."""
    spec = one(rendered("default"), "HorizontalPodAutoscaler")["spec"]
    assert spec["behavior"] == BEHAVIOUR
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gw-llm-gateway"}
    (cpu,) = spec["metrics"]
    target = {"type": "Utilization", "averageUtilization": 70}
    assert cpu["containerResource"] == {"name": "cpu", "container": "gateway", "target": target}
    both = one(render({"autoscaling": {"hpa": {"inflightRequests": 50}}}), "HorizontalPodAutoscaler")["spec"]
    assert both["metrics"][1]["pods"] == {
        "metric": {"name": "llm_gateway_inflight_requests"},
        "target": {"type": "AverageValue", "averageValue": "50"},
    }


def test_keda_asks_the_gateway_with_the_read_only_token() -> None:
    """The token comes from the Secret by a TriggerAuthentication; the address is that of the management Service."""
    objects = rendered("keda")
    spec = one(objects, "ScaledObject")["spec"]
    (trigger,) = spec["triggers"]
    authentication = one(objects, "TriggerAuthentication")
    assert trigger["type"] == "metrics-api"
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert trigger["metadata"] == {
        "url": f"http://{one(objects, 'Service', '-management')['metadata']['name']}.llm.svc:8081/admin/v1/autoscaling",
        "format": "json",
        "valueLocation": "inflight_requests",
        "targetValue": "20",
        "authMode": "bearer",
    }
    secret = {"parameter": "token", "name": "gateway-admin", "key": "read-token"}
    assert authentication["spec"]["secretTargetRef"] == [secret]
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == BEHAVIOUR
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_keda_asks_prometheus_for_this_release() -> None:
    """The query is PromQL and names namespace and Service."""
    import promql_parser

    (trigger,) = one(rendered("everything"), "ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    promql_parser.parse(query)
    assert 'namespace="llm"' in query
    assert 'service="gw-gateway-management"' in query


def checksum(values: dict[str, Any]) -> str:
    """What makes pods restart."""
    template = one(render(values), "Deployment")["spec"]["template"]
    text: str = template["metadata"]["annotations"]["checksum/settings"]
    return text


def test_settings_restart_pods_and_the_registry_does_not() -> None:
    """The checksum is that of the settings; the whole template of the pods is the same with another registry."""
    values = scenario("production")
    other = merged(values, {"registry": {"tenants": {"beta": {"scenarios": ["*"]}}}})
    assert one(render(values), "ConfigMap", "-registry") != one(render(other), "ConfigMap", "-registry")
    assert one(render(values), "Deployment") == one(render(other), "Deployment")
    assert checksum(values) != checksum(merged(values, {"settings": {"LLM_GATEWAY_LOG_LEVEL": "debug"}}))
    assert checksum(values) != checksum(merged(values, {"redis": {"external": {"url": "redis://other:6379"}}}))


def test_valkey_keeps_what_must_not_be_forgotten() -> None:
    """An append-only file, no eviction, one pod, on a volume of its own only where that is asked for."""
    objects = rendered("default")
    config = one(objects, "ConfigMap", "-valkey")["data"]["valkey.conf"].splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction", "maxmemory 384mb", 'save ""'} <= set(config)
    spec = one(objects, "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    assert "volumeClaimTemplates" not in spec
    assert {"name": "data", "emptyDir": {}} in spec["template"]["spec"]["volumes"]
    kept = one(rendered("embedded-redis"), "StatefulSet")["spec"]
    assert kept["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert "data" not in [volume["name"] for volume in kept["template"]["spec"]["volumes"]]


@pytest.mark.parametrize("name", ALL)
def test_no_pod_starts_a_valkey_of_its_own(name: str) -> None:
    """Replicas that each had one would each count alone."""
    assert settings_of(rendered(name)).get("LLM_GATEWAY_REDIS_URL") != "embedded"


def test_routes_let_streams_pass() -> None:
    """No buffering and no timeout shorter than the gateway's own."""
    objects = rendered("everything")
    annotations = one(objects, "Ingress")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/proxy-"
    assert annotations[f"{prefix}buffering"] == annotations[f"{prefix}request-buffering"] == "off"
    assert int(annotations[f"{prefix}read-timeout"]) >= 570
    (rule,) = one(objects, "HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s"}
    assert rule["backendRefs"] == [{"name": "gw-gateway", "port": 80}]


def test_pods_are_spread_by_their_own_labels() -> None:
    """Counted per revision, so that a rollout is spread by itself."""
    for constraint in gateway_pod(rendered("default"))["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]
