"""The charts as real Helm renders them, in process; renders are kept, since tests ask for the same ones.

objects = rendered("production")              # by scenario: charts/llm-gateway/ci/production-values.yaml
deployment = one(objects, "Deployment")
with pytest.raises(HelmError): render({"registry": {"sorce": "values"}})
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "llm-gateway"
SCENARIOS = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE, NAMESPACE = "gw", "llm"

Object = dict[str, Any]


@cache
def chart() -> helm.Chart:
    """The chart of the gateway."""
    return helm.Chart.load(CHART)


@cache
def scenario_text(name: str) -> str:
    """The values of a scenario as they are in ``ci``; ``default`` has none."""
    return "" if name == "default" else (CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8")


def scenario(name: str) -> dict[str, Any]:
    """The values of a scenario; the caller may change them."""
    values: dict[str, Any] = yaml.safe_load(scenario_text(name)) or {}
    return values


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others laid over them, as Helm does it."""
    result = dict(values)
    for name, value in more.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def manifests(values: Mapping[str, Any], namespace: str = NAMESPACE) -> dict[str, str]:
    """What each template becomes. Raises helm.HelmError."""
    return _manifests(json.dumps(values, sort_keys=True), namespace)


@cache
def _manifests(values: str, namespace: str) -> dict[str, str]:
    return chart().render(json.loads(values), name=RELEASE, namespace=namespace)


def render(values: Mapping[str, Any], namespace: str = NAMESPACE) -> list[Object]:
    """Every object, in the order of the templates; not to be changed. Raises helm.HelmError."""
    return list(_objects(json.dumps(values, sort_keys=True), namespace))


@cache
def _objects(values: str, namespace: str) -> tuple[Object, ...]:
    return tuple(parse(_manifests(values, namespace)))


def parse(texts: Mapping[str, str]) -> Iterator[Object]:
    """The objects of rendered templates; notes are none."""
    for name, text in sorted(texts.items()):
        if not name.endswith("NOTES.txt"):
            yield from (document for document in yaml.load_all(text, UniqueKeyLoader) if document)


def notes(values: Mapping[str, Any]) -> str:
    """What ``helm install`` prints."""
    return next(text for name, text in manifests(values).items() if name.endswith("NOTES.txt"))


def rendered(name: str) -> list[Object]:
    """Every object of a scenario."""
    return render(scenario(name))


def one(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or the one whose name ends so."""
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def kinds(objects: Sequence[Object]) -> set[str]:
    """The kinds that there are."""
    return {each["kind"] for each in objects}


def pod_of(each: Object) -> Object | None:
    """The pod that an object is or makes, with metadata and spec."""
    if each["kind"] == "Pod":
        return each
    template: Object | None = (each.get("spec") or {}).get("template")
    return template


def pod_specs(objects: Sequence[Object]) -> dict[str, Object]:
    """The spec of every pod that the objects make, by kind and name."""
    pods = [(each, pod_of(each)) for each in objects]
    return {f"{each['kind']}/{each['metadata']['name']}": pod["spec"] for each, pod in pods if pod is not None}


def gateway_pod(objects: Sequence[Object]) -> Object:
    """The spec of the gateway's pod."""
    spec: Object = one(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def settings_of(objects: Sequence[Object]) -> dict[str, str]:
    """The environment that the settings' ConfigMap gives."""
    data: dict[str, str] = one(objects, "ConfigMap", "-settings")["data"]
    return data


class UniqueKeyLoader(yaml.CSafeLoader):
    """Refuses a mapping that has a key twice, of which others would silently take one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See the base class."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {sorted(map(str, keys))}"
        return super().construct_mapping(node, deep)
