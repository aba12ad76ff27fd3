"""The examples of backends that scale: valid for Kubernetes, for KEDA as far as can be told, and for the gateway."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from gateway import clock
from gateway.registry import load_folder
from gateway.registry.compile import AnySecret
from gateway.telemetry.families import BACKEND_INFLIGHT, BACKEND_QUEUED

EXAMPLES = Path(__file__).resolve().parents[2] / "k8s/examples"
VLLM = EXAMPLES / "vllm"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
OURS = "llmgateway.dev/"
KEDA = "keda.sh/v1alpha1"

# What KEDA's ScaledObject has, https://keda.sh/docs/2.19/reference/scaledobject-spec/; its schema is in no package.
SCALED = {"scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount", "fallback",
          "advanced", "triggers"}  # fmt: skip
ADVANCED = {"scalingModifiers", "horizontalPodAutoscalerConfig"}
MODIFIERS = {"formula", "target", "activationTarget", "metricType"}
TRIGGER = {"type", "name", "metricType", "metadata", "authenticationRef"}
METADATA = {
    "prometheus": {"serverAddress", "query", "threshold", "activationThreshold"},
    "metrics-api": {"url", "valueLocation", "targetValue", "authMode"},
}


def objects(path: Path) -> list[dict[str, Any]]:
    """The documents of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def kind_of(path: Path, kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [each for each in objects(path) if each["kind"] == kind]
    return found


SCALERS = [path for path in FILES if any(each["kind"] == "ScaledObject" for each in objects(path))]


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
def test_objects_of_kubernetes_are_valid(version: str) -> None:
    """With no field that it does not know."""
    checked = 0
    for each in itertools.chain.from_iterable(map(objects, FILES)):
        if not each["apiVersion"].startswith((OURS, "keda.sh/")):
            kubernetes_validate.validate(each, version, strict=True)
            checked += 1
    assert checked == 3


@pytest.mark.parametrize("path", SCALERS, ids=lambda path: path.name)
def test_objects_of_keda_have_its_shape(path: Path) -> None:
    """Fields that it knows, values as strings where it wants them, and authentications that are there."""
    scaled = kind_of(path, "ScaledObject")
    spec = scaled["spec"]
    assert scaled["apiVersion"] == KEDA
    assert set(spec) <= SCALED
    assert set(spec["advanced"]) <= ADVANCED
    modifiers = spec["advanced"].get("scalingModifiers")
    assert modifiers is None or set(modifiers) <= MODIFIERS
    names = [trigger.get("name") for trigger in spec["triggers"]]
    if modifiers is not None:
        assert sorted(modifiers["formula"].replace("+", " ").split()) == sorted(map(str, names))
    known = {each["metadata"]["name"] for each in objects(path) if each["kind"] == "TriggerAuthentication"}
    for trigger in spec["triggers"]:
        assert set(trigger) <= TRIGGER
        assert set(trigger["metadata"]) <= METADATA[trigger["type"]]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert trigger["type"] != "metrics-api" or trigger["authenticationRef"]["name"] in known
    for each in objects(path):
        if each["kind"] == "TriggerAuthentication":
            assert [set(secret) for secret in each["spec"]["secretTargetRef"]] == [{"parameter", "name", "key"}]


@pytest.mark.parametrize("path", SCALERS, ids=lambda path: path.name)
def test_scaling_is_to_zero_and_back_on_what_the_gateway_tells(path: Path) -> None:
    """Of the deployment that is there, by the gateway's own names, and never down for want of numbers."""
    spec = kind_of(path, "ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] == kind_of(VLLM / "vllm.yaml", "Deployment")["metadata"]["name"]
    assert spec["minReplicaCount"] == 0
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    backend = kind_of(VLLM / "registry/qwen.yaml", "Backend")["metadata"]["name"]
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        if trigger["type"] == "prometheus":
            promql_parser.parse(metadata["query"])
            assert f'backend="{backend}"' in metadata["query"]
            assert '"llm_gateway_backend_(inflight|queued)_requests"' in metadata["query"]
            assert {spec.name for spec in (BACKEND_INFLIGHT, BACKEND_QUEUED)} == {
                "llm_gateway_backend_inflight_requests",
                "llm_gateway_backend_queued_requests",
            }
        else:
            assert metadata["url"].endswith(":8081/admin/v1/autoscaling")
            assert metadata["valueLocation"] == f"backends.{backend}.{trigger['name']}_requests"


def test_the_deployment_is_restricted_and_leaves_the_count_to_the_scaler() -> None:
    """As the restricted Pod Security standard wants it."""
    spec = kind_of(VLLM / "vllm.yaml", "Deployment")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert "replicas" not in spec
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def test_the_numbers_belong_together() -> None:
    """As the README says: what one changes without the other."""
    deployment = kind_of(VLLM / "vllm.yaml", "Deployment")["spec"]["template"]["spec"]
    (container,) = deployment["containers"]
    sequences = next(int(each.partition("=")[2]) for each in container["args"] if each.startswith("--max-num-seqs"))
    backend = load(VLLM / "registry")
    total_s, wait_s = backend.timeouts.total_s, backend.queue.wait_s
    stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert total_s + 10 == stop_s < deployment["terminationGracePeriodSeconds"] - 10
    assert total_s + wait_s <= 570, "the chart's drain"
    assert backend.max_concurrent_requests == 4 * sequences / 2
    for path in SCALERS:
        spec = kind_of(path, "ScaledObject")["spec"]
        modifiers = spec["advanced"].get("scalingModifiers")
        target = modifiers["target"] if modifiers else spec["triggers"][0]["metadata"]["threshold"]
        assert (int(target), spec["maxReplicaCount"]) == (sequences * 3 / 4, 4)
        assert spec["cooldownPeriod"] > wait_s


def load(folder: Path) -> Any:
    """The one backend of a registry that has nothing wrong."""
    result = load_folder(folder, AnySecret(), None, clock.wall())
    assert [str(problem) for problem in result.problems] == []
    (backend,) = result.snapshot.backends.values()
    return backend


def test_both_registries_say_the_same() -> None:
    """But for how the pods are found."""
    folder, cluster = [objects(VLLM / name / "qwen.yaml") for name in ("registry", "custom-resources")]
    for ours, theirs in zip(folder, cluster, strict=True):
        assert theirs["metadata"].pop("namespace") == "llm-gateway-registry"
        ours["spec"].pop("url", None)
        theirs["spec"].pop("service", None)
        assert ours == theirs
