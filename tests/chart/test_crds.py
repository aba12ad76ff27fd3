"""The chart of the custom resource definitions: made from the models, structural, bounded, rendered by real Helm."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import helm_python as helm
import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from gateway import __version__
from gateway.registry.resources import PLURALS
from gateway.registry.yaml import load_documents
from tests.support.structural import faults

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/llm-gateway-crds"
KINDS = sorted(PLURALS)
VERSIONS = ("1.34", "1.35", "1.36", "1.37")


def installed(kind: Any) -> dict[str, Any]:
    """The definition of a kind as the chart has it."""
    document: dict[str, Any] = yaml.safe_load((CHART / "files" / f"{PLURALS[kind]}.yaml").read_text())
    return document


def schema_of(kind: Any) -> dict[str, Any]:
    """Its structural schema."""
    (version,) = installed(kind)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("kind", KINDS)
def test_each_schema_is_structural_and_bounded(kind: str) -> None:
    """An API server takes it, keeps a mistyped key for the gateway to see, and can price its rules."""
    assert list(faults(schema_of(kind))) == []


def test_the_checker_finds_what_an_api_server_refuses() -> None:
    """Each rule that is broken is named, so that the test above means something."""
    good = schema_of("Backend")
    spec = good["properties"]["spec"]
    broken: list[tuple[str, Any]] = [
        ("is not allowed", {**spec, "$ref": "#/x"}),
        ("must be a schema", {"type": "object", "additionalProperties": False, "maxProperties": 1}),
        ("exclude each other", {**spec, "additionalProperties": {"type": "boolean"}, "maxProperties": 1}),
        ("has no type", {"description": "x"}),
        ("without a bound", {"type": "string"}),
        ("without a bound", {"type": "array", "items": {"type": "boolean"}}),
        ("without a word", {"type": "object", "properties": {}}),
        ("repeats at most", {"type": "string", "maxLength": 9, "pattern": "^a{0,4094}$"}),
        ("no look-around", {"type": "string", "maxLength": 9, "pattern": "^(?!a)$"}),
        ("has a default", {"type": "boolean", "default": False}),
        ("cannot have the type", {"type": "integer", "x-kubernetes-int-or-string": True}),
    ]
    for reason, schema in broken:
        changed = copy.deepcopy(good)
        changed["properties"]["spec"] = schema
        assert any(reason in fault for fault in faults(changed)), reason


@pytest.mark.parametrize("version", VERSIONS)
def test_each_definition_is_valid_for_kubernetes(version: str) -> None:
    """By the schemas of every version that the chart is for."""
    for kind in KINDS:
        kubernetes_validate.validate(installed(kind), version, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_people_see_and_what_a_status_needs(kind: str) -> None:
    """Conditions are a list with the type as key; kubectl shows them; a removed release leaves the definition."""
    definition = installed(kind)
    (version,) = definition["spec"]["versions"]
    columns = {each["name"]: each["jsonPath"] for each in version["additionalPrinterColumns"]}
    assert {"Accepted", "Ready", "Reason", "Age"} <= columns.keys()
    assert version["subresources"] == {"status": {}}
    conditions = schema_of(kind)["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_prompt_is_immutable() -> None:
    """The API server itself refuses a change of a version."""
    (rule,) = schema_of("Prompt")["properties"]["spec"]["x-kubernetes-validations"]
    assert rule["rule"] == "self == oldSelf"


def test_what_the_gateway_accepts_the_schema_accepts() -> None:
    """The example registry, object by object, passes the schemas that an API server would apply."""
    checked = 0
    for path in sorted((ROOT / "registry").rglob("*.yaml")):
        if "local" in path.parts or "prompts" in path.relative_to(ROOT / "registry").parts:
            continue
        for document in load_documents(path.read_bytes()):
            assert isinstance(document.value, dict)
            jsonschema_rs.validate(_standard(schema_of(document.value["kind"])), document.value)
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistyped_key_is_left_to_the_gateway(kind: str) -> None:
    """The schema refuses wrong values and lets unknown keys pass: the gateway names them in the status."""
    validator = jsonschema_rs.validator_for(_standard(schema_of(kind)))
    name = "a.b" if kind == "Prompt" else "a"
    good: dict[str, Any] = {"apiVersion": "llmgateway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
    for spec in GOOD[kind]:
        assert validator.is_valid({**good, "spec": spec}), list(map(str, validator.iter_errors({**good, "spec": spec})))
        assert validator.is_valid({**good, "spec": {**spec, "mistypedKey": 1}})
    assert not validator.is_valid({**good, "spec": []})
    assert not validator.is_valid(good)


GOOD: dict[str, list[dict[str, Any]]] = {
    "Backend": [
        {"provider": "echo"},
        {
            "provider": "openai",
            "url": "https://api.example/v1",
            "auth": {"type": "header", "name": "x-key", "secret": {"secretRef": {"name": "s", "key": "k"}}},
            "headers": {"x-team": "llm"},
            "price": {"inputPerMillion": "0.50", "outputPerMillion": "1"},
            "timeouts": {"total": "9m"},
        },
    ],
    "Scenario": [
        {
            "targets": [{"backend": "a", "weight": 0}, {"backend": "b.c"}],
            "parameters": {"defaults": {"temperature": 0.3, "stop": ["x"], "deep": {"er": None}}},
            "access": {"tenants": ["*", "acme"]},
        }
    ],
    "Tenant": [{"limits": [{"unit": "cost", "per": "month", "amount": "400"}, {"unit": "concurrency", "amount": 5}]}],
    "ApiKey": [{"tenant": "acme", "digests": [{"sha256": "a" * 64, "expiresAt": "2027-01-01T00:00:00Z"}]}],
    "Prompt": [{"template": "Say {{it}}: {x}", "inputVars": ["x"]}],
}


def _standard(schema: Any) -> Any:
    """The structural schema as JSON Schema: an API server's own extensions put into words that a validator knows."""
    if isinstance(schema, list):
        return [_standard(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    standard = {key: _standard(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        standard["type"] = ["integer", "string"]
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"  # a flag there, a bound here
        if standard.get(exclusive) is True:
            standard[exclusive] = standard.pop(bound)
    return standard


def test_helm_renders_the_definitions_as_they_are() -> None:
    """Braces in a description are no template, and the values take nothing."""
    chart = helm.Chart.load(CHART)
    texts = chart.render({}, name="crds", namespace="default").values()
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    assert {each["metadata"]["name"]: each for each in objects} == {
        each["metadata"]["name"]: each for each in map(installed, KINDS)
    }
    with pytest.raises(helm.HelmError, match="crds"):
        chart.render({"crds": {"keep": False}}, name="crds", namespace="default")


def test_the_versions_of_the_chart_are_those_of_the_gateway() -> None:
    """A chart that is installed says which gateway it is for."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert json.loads((CHART / "values.schema.json").read_text())["additionalProperties"] is False
