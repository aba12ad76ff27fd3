"""What stands beside the chart fits it: what scenarios expect to be there, and the rules of Prometheus Adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from gateway.registry import AnySecret, load_folder
from tests.support.chart import ROOT, SCENARIOS, Object, one, pod_of, pod_specs, render, rendered, scenario

K8S = ROOT / "k8s"


def expected(name: str) -> list[Object]:
    """What is applied before a scenario is installed."""
    path = K8S / "ci" / f"{name}.yaml"
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) if path.exists() else []


def asked_for(spec: Object) -> Iterator[tuple[str, str | None]]:
    """The Secrets that a pod cannot start without, with the key where one is named."""
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            for item in volume["secret"].get("items", [{"key": None}]):
                yield volume["secret"]["secretName"], item["key"]
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                yield source["secret"]["name"], item["key"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_finds_what_it_refers_to(name: str) -> None:
    """Every Secret and key that a pod mounts is made by the chart or is there before, and no other is made."""
    objects = rendered(name)
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "Secret"}
    wanted = {each for spec in pod_specs(objects).values() for each in asked_for(spec) if each[0] not in made}
    for each in objects:
        if each["kind"] == "TriggerAuthentication":
            wanted |= {(target["name"], target["key"]) for target in each["spec"]["secretTargetRef"]}
    secrets = [each for each in expected(name) if each["kind"] == "Secret" and "namespace" not in each["metadata"]]
    there = {each["metadata"]["name"]: set(each["stringData"]) for each in secrets}
    assert {secret for secret, _ in wanted} == set(there)
    assert all(key is None or key in there[secret] for secret, key in wanted)


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_expected_is_valid_and_restricted(name: str, tmp_path: Path) -> None:
    """By the schemas of Kubernetes, by the gateway's own for its resources, and for pods by their security contexts."""
    ours = 0
    for number, each in enumerate(expected(name)):
        if each["apiVersion"].startswith("llmgateway.dev/"):
            (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(each))
            ours += 1
            continue
        kubernetes_validate.validate(each, "1.36", strict=True)
        for key, text in each.get("data", {}).items() if each["kind"] == "ConfigMap" else ():
            (tmp_path / f"{number}-{key}").write_text(text)
        pod = pod_of(each)
        if pod is not None:
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["spec"]["containers"])
    assert load_folder(tmp_path, AnySecret(), None, 0.0).problems == ()
    assert ours or name != "custom-resources"


def test_image_in_front_and_behind_is_the_charts() -> None:
    """The backend of the production scenario is the image under test."""
    images = {
        container["image"]
        for each in expected("production")
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
    }
    specs = pod_specs(render({}))
    assert images == {spec["containers"][0]["image"] for name, spec in specs.items() if not name.startswith("Pod/")}


def test_adapter_has_the_metric_that_the_hpa_reads() -> None:
    """Under the same name, by a query that Prometheus understands."""
    (rule,) = yaml.safe_load((K8S / "prometheus-adapter" / "values.yaml").read_text())["rules"]["custom"]
    spec = one(render({"autoscaling": {"hpa": {"inflightRequests": 50}}}), "HorizontalPodAutoscaler")["spec"]
    assert spec["metrics"][1]["pods"]["metric"]["name"] == rule["name"]["as"]
    query = rule["metricsQuery"]
    for placeholder, text in {
        "<<.Series>>": "llm_gateway_inflight_requests",
        "<<.LabelMatchers>>": 'namespace="llm",pod=~"a|b"',
        "<<.GroupBy>>": "pod",
    }.items():
        query = query.replace(placeholder, text)
    promql_parser.parse(query)
    promql_parser.parse(rule["seriesQuery"])


def test_examples_of_the_document_are_values_of_the_chart() -> None:
    """Each YAML block of docs/kubernetes.md that is not an object of somebody else renders over a scenario."""
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    parsed: list[Any] = [yaml.safe_load(block) for block in blocks]
    ours = [block for block in parsed if "kind" not in block]
    assert len(ours) >= 3
    for block in ours:
        assert render(block), json.dumps(block)
    assert scenario("production")
