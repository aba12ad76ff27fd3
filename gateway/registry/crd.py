"""The CustomResourceDefinitions of the registry's kinds, from the models that validate. Pure and deterministic.

``python -m gateway.registry.crd charts/llm-gateway-crds/files`` writes them, one file per kind.

The schemas are structural, as
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
wants them: no reference, a type everywhere but where anything may stand, no closed objects, nothing but value
validation inside ``anyOf``. Every string, list and map has a bound. Invariants of ours:
- Every object keeps unknown fields, so that the gateway sees a mistyped key and refuses it by name, where the API
  server would drop it without a word.
- There are no defaults: what an author has not written is not in the object.
- Patterns are within what Go's RE2 takes: a repetition above 1,000 becomes a length.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.registry import template, values
from gateway.registry.base import API_VERSION
from gateway.registry.documents import Kind
from gateway.registry.parse import KINDS
from gateway.registry.resources import GROUP, PLURALS
from gateway.registry.schema import json_schemas

Schema = dict[str, Any]

STRING_MAX: Final = 4096
ITEMS_MAX: Final = 1024
PROPERTIES_MAX: Final = 256
_REPEAT_MAX: Final = 1000  # of Go's regexp/syntax
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_LENGTHS: Final[Mapping[str, int]] = {
    values.DURATION_PATTERN: 11,
    values.MONEY_PATTERN: 19,
    values.LABEL_PATTERN: 63,
    values.SUBDOMAIN_PATTERN: 253,
    values.SECRET_ENV_PATTERN: 147,
    values.SHA256_PATTERN: 64,
    values.HEADER_NAME_PATTERN: 128,
    template.VARIABLE_PATTERN: 64,
}
_TAKEN: Final = ("type", "description", "enum", "pattern", "format", "minLength", "maxLength", "minimum", "maximum")
_FORMATS: Final = ("date-time", "uri", "int32", "int64")

_COLUMNS: Final[Mapping[Kind, tuple[tuple[str, str, str], ...]]] = {
    "Backend": (("Provider", "string", ".spec.provider"), ("Model", "string", ".spec.model")),
    "Prompt": (),
    "Scenario": (("Prompt", "string", ".spec.prompt"), ("Disabled", "boolean", ".spec.disabled")),
    "Tenant": (("Display name", "string", ".spec.displayName"), ("Disabled", "boolean", ".spec.disabled")),
    "ApiKey": (("Tenant", "string", ".spec.tenant"), ("Disabled", "boolean", ".spec.disabled")),
}
_VERSIONED: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$"
_NAMES: Final[Mapping[str, Schema]] = {
    "Tenant": {"type": "string", "maxLength": 63, "pattern": values.LABEL_PATTERN},
    "Prompt": {"type": "string", "maxLength": 253, "pattern": _VERSIONED},
}
_IMMUTABLE: Final = [
    {"rule": "self == oldSelf", "message": "a version of a prompt stays as it is: make another version"}
]


def definitions() -> dict[Kind, Schema]:
    """Return the definitions by kind."""
    schemas = json_schemas()
    return {kind: _definition(kind, schemas[kind.lower()]) for kind in KINDS}


def _definition(kind: Kind, schema: Mapping[str, Any]) -> Schema:
    plural = PLURALS[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "llm-gateway", "app.kubernetes.io/component": "registry"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "categories": ["llmgateway"],
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "scope": "Namespaced",
            "versions": [_version(kind, schema)],
        },
    }


def _version(kind: Kind, schema: Mapping[str, Any]) -> Schema:
    return {
        "name": API_VERSION.partition("/")[2],
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            *({"name": name, "type": type_, "jsonPath": path} for name, type_, path in _COLUMNS[kind]),
            _condition_column("Accepted", "status"),
            _condition_column("Ready", "status"),
            _condition_column("Reason", "reason", of="Accepted"),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {**_condition_column("Message", "message", of="Accepted"), "priority": 1},
        ],
        "schema": {"openAPIV3Schema": resource_schema(kind, schema)},
    }


def _condition_column(name: str, field: str, of: str = "") -> Schema:
    return {"name": name, "type": "string", "jsonPath": f'.status.conditions[?(@.type=="{of or name}")].{field}'}


def resource_schema(kind: Kind, schema: Mapping[str, Any]) -> Schema:
    """Return the structural schema of a kind, from the JSON Schema of its document."""
    spec = _Structural(schema.get("$defs", {})).convert(schema["properties"]["spec"])
    if kind == "Prompt":
        spec["x-kubernetes-validations"] = _IMMUTABLE
    metadata: Schema = {"type": "object"}
    if kind in _NAMES:
        metadata["properties"] = {"name": _NAMES[kind]}
    return {
        "type": "object",
        "description": schema["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": metadata,
            "spec": spec,
            "status": _status_schema(),
        },
        _PRESERVE: True,
    }


def _status_schema() -> Schema:
    text: Schema = {"type": "string", "maxLength": 316}
    condition = {
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            "type": text,
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": {"type": "string", "maxLength": 1024},
            "message": {"type": "string", "maxLength": 32768},
            "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
        _PRESERVE: True,
    }
    return {
        "type": "object",
        "description": "What the gateway says of the object.",
        "properties": {
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "description": "The generation that the conditions are about.",
            },
            "conditions": {
                "type": "array",
                "description": "Accepted: it serves as it is written. Ready: some version of it serves.",
                "maxItems": 16,
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
        _PRESERVE: True,
    }


class _Structural:
    """Turns a JSON Schema with these definitions into a structural schema."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._above: list[str] = []

    def convert(self, node: Mapping[str, Any]) -> Schema:
        """Return the structural schema of a node; what has no such form may hold anything."""
        reference = node.get("$ref")
        if reference is not None:
            return self._referred(str(reference).rpartition("/")[2], node)
        options = node.get("anyOf") or node.get("oneOf")
        if options:
            return self._either(node, [option for option in options if option != {"type": "null"}])
        if "const" in node:
            return _said(node, {"type": "string", "enum": [node["const"]]})
        match node.get("type"):
            case "object":
                return self._object(node)
            case "array":
                items = self.convert(node.get("items", {}))
                return _said(node, {"type": "array", "items": items, **_bounds(node, "Items", ITEMS_MAX)})
            case "string":
                return _string(node)
            case "integer" | "number" | "boolean":
                return _number(node)
            case _:
                return _anything(node)

    def _referred(self, name: str, node: Mapping[str, Any]) -> Schema:
        if name in self._above:  # a model that holds itself has no structural schema
            return _anything(node)
        self._above.append(name)
        try:
            return _said(node, self.convert(self._definitions[name]))
        finally:
            self._above.pop()

    def _either(self, node: Mapping[str, Any], options: list[Mapping[str, Any]]) -> Schema:
        converted = [self.convert(option) for option in options]
        types = {each.get("type") for each in converted}
        if len(converted) == 1:
            return _said(node, converted[0])
        if types == {"integer", "string"}:
            longest = max(each.get("maxLength", 0) for each in converted)
            return _said(node, {"x-kubernetes-int-or-string": True, "maxLength": longest})
        if types == {"string"}:
            return _said(node, _one_string(converted))
        return _anything(node)

    def _object(self, node: Mapping[str, Any]) -> Schema:
        below = node.get("additionalProperties")
        patterns = node.get("patternProperties")
        if patterns:
            (below,) = patterns.values()
        if "properties" in node:
            schema: Schema = {"type": "object"}
            if node.get("required"):
                schema["required"] = list(node["required"])
            schema["properties"] = {name: self.convert(each) for name, each in node["properties"].items()}
            return _said(node, {**schema, _PRESERVE: True})
        schema = {"type": "object", **_bounds(node, "Properties", PROPERTIES_MAX)}
        if isinstance(below, Mapping) and below:
            return _said(node, {**schema, "additionalProperties": self.convert(below)})
        return _said(node, {**schema, _PRESERVE: True})


def _said(node: Mapping[str, Any], schema: Schema) -> Schema:
    """Return the schema with the description of where it is used."""
    description = node.get("description", schema.get("description"))
    rest = {name: value for name, value in schema.items() if name != "description"}
    return rest if description is None else {"description": description, **rest}


def _anything(node: Mapping[str, Any]) -> Schema:
    return _said(node, {_PRESERVE: True})


def _bounds(node: Mapping[str, Any], what: str, most: int) -> Schema:
    least = node.get(f"min{what}")
    bounds: Schema = {} if least is None else {f"min{what}": least}
    return bounds | {f"max{what}": node.get(f"max{what}", most)}


def _string(node: Mapping[str, Any]) -> Schema:
    schema = {name: node[name] for name in _TAKEN if name in node and name != "description"}
    if schema.get("format") not in _FORMATS:
        schema.pop("format", None)
    if "enum" in schema:
        return _said(node, schema)
    pattern, length = schema.get("pattern"), node.get("maxLength")
    if pattern is not None:
        length = length or _LENGTHS.get(pattern)
        schema["pattern"], repeated = _within_re2(pattern)
        length = length or repeated
    schema["maxLength"] = length or STRING_MAX
    return _said(node, schema)


def _within_re2(pattern: str) -> tuple[str, int | None]:
    """Return the pattern without repetitions that RE2 refuses, and the length that they stood for."""
    single = re.fullmatch(r"\^\[[^\]]+\]\{[0-9]+,([0-9]+)\}\$", pattern)
    if single and int(single[1]) <= _REPEAT_MAX:
        return pattern, int(single[1])
    lengths = [int(most) for most in re.findall(r"\{[0-9]+,([0-9]+)\}", pattern) if int(most) > _REPEAT_MAX]
    loose = re.sub(r"\{([01]),([0-9]+)\}", lambda m: "*+"[int(m[1])] if int(m[2]) > _REPEAT_MAX else m[0], pattern)
    return loose, (sum(lengths) + 2 if lengths else None)


def _one_string(options: list[Schema]) -> Schema:
    """Return the string that is one of several: words, or patterns."""
    if all("enum" in each for each in options):
        return {"type": "string", "enum": [word for each in options for word in each["enum"]]}
    parts = [
        "|".join(re.escape(word) for word in each["enum"]) if "enum" in each else _unanchored(each.get("pattern"))
        for each in options
    ]
    length = max(each.get("maxLength", 0) for each in options)
    schema: Schema = {"type": "string", "maxLength": length or STRING_MAX}
    return schema if None in parts else schema | {"pattern": f"^({'|'.join(str(part) for part in parts)})$"}


def _unanchored(pattern: str | None) -> str | None:
    return None if pattern is None else f"({pattern.removeprefix('^').removesuffix('$')})"


def _number(node: Mapping[str, Any]) -> Schema:
    schema = {name: node[name] for name in _TAKEN if name in node and name != "description"}
    schema.pop("format", None)
    if schema["type"] == "integer":
        schema["format"] = "int64"
    for name in ("Minimum", "Maximum"):
        if f"exclusive{name}" in node:  # a flag beside the bound in the dialect of the API server
            schema |= {name.lower(): node[f"exclusive{name}"], f"exclusive{name}": True}
    return _said(node, schema)


class _Dumper(yaml.SafeDumper):
    """Writes lists indented, as people do, and nothing as a reference."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # whatever it is
        return True


def render(definition: Schema) -> str:
    """Return a definition as YAML."""
    head = "# Made by `make docs` from the models in gateway/registry: do not edit.\n"
    return head + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=False)


def write(folder: Path) -> None:
    """Write every definition to its file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, definition in definitions().items():
        (folder / f"{PLURALS[kind]}.yaml").write_text(render(definition), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
