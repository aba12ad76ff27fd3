"""The documented rules of structural schemas, and the bounds that CEL rules need, as a checker.

After https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ ("Specifying a
structural schema", "Validation", "x-kubernetes-int-or-string", "RawExtension") and apiextensions-apiserver's
``schema/validation.go``. It stands in for an API server, which no test here can have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

FORBIDDEN = {
    "$ref",
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "examples",
    "const",
    "if",
    "then",
    "else",
    "patternProperties",
    "propertyNames",
    "prefixItems",
    "contains",
    "readOnly",
    "writeOnly",
    "xml",
}
KNOWN = {
    "type", "description", "title", "format", "enum", "default", "example", "nullable", "externalDocs",
    "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "items", "minItems", "maxItems", "uniqueItems",
    "properties", "additionalProperties", "required", "minProperties", "maxProperties",
    "anyOf", "oneOf", "allOf", "not",
}  # fmt: skip
EXTENSIONS = {
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
}
TYPES = {"object", "array", "string", "integer", "number", "boolean"}
FORMATS = {"date-time", "uri", "int32", "int64", "date", "duration", "ipv4", "ipv6", "cidr", "byte"}
REPEAT_MAX = 1000


def faults(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield what an API server, or our own rules, would refuse."""
    for key in schema:
        if key in FORBIDDEN or key not in KNOWN | EXTENSIONS:
            yield f"{path}: {key} is not allowed"
    kind = schema.get("type")
    open_ = schema.get("x-kubernetes-preserve-unknown-fields", False)
    either = schema.get("x-kubernetes-int-or-string", False)
    if kind is None and not open_ and not either:
        yield f"{path}: has no type"
    if kind is not None and (kind not in TYPES or either):
        yield f"{path}: cannot have the type {kind}"
    if "default" in schema:
        yield f"{path}: has a default, which would be written into objects"
    if schema.get("uniqueItems"):
        yield f"{path}: uniqueItems must not be true"
    if "format" in schema and schema["format"] not in FORMATS:
        yield f"{path}: {schema['format']} is no format of an API server"
    yield from _object_faults(schema, path)
    yield from _bound_faults(schema, path)
    yield from _pattern_faults(schema, path)


def _object_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    properties, below = schema.get("properties", {}), schema.get("additionalProperties")
    if properties and below is not None:
        yield f"{path}: properties and additionalProperties exclude each other"
    if below is not None and not isinstance(below, Mapping):
        yield f"{path}: additionalProperties must be a schema"
    keeps = below is not None or schema.get("x-kubernetes-preserve-unknown-fields", path == ".metadata")
    if schema.get("type") == "object" and not keeps:
        yield f"{path}: drops unknown keys without a word"
    missing = [name for name in schema.get("required", []) if name not in properties]
    yield from (f"{path}: requires {name}, which it lacks" for name in missing)
    if path == ".metadata" and set(properties) - {"name", "generateName"}:
        yield f"{path}: may restrict name and generateName only"
    for name, each in properties.items():
        yield from faults(each, f"{path}.{name}")
    if isinstance(below, Mapping):
        yield from faults(below, f"{path}.*")
    yield from _list_faults(schema, path)


def _list_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    items = schema.get("items")
    if schema.get("type") == "array" and not isinstance(items, Mapping):
        yield f"{path}: has no items"
    if isinstance(items, Mapping):
        yield from faults(items, f"{path}[]")
        for key in schema.get("x-kubernetes-list-map-keys", []):
            if key not in items.get("required", []):
                yield f"{path}: {key} is a key of the list and not required"


def _bound_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    kind = schema.get("type")
    is_plain_word = path in (".apiVersion", ".kind")
    if kind == "string" and "enum" not in schema and "maxLength" not in schema and not is_plain_word:
        yield f"{path}: is a string without a bound"
    if kind == "array" and "maxItems" not in schema:
        yield f"{path}: is a list without a bound"
    if "additionalProperties" in schema and "maxProperties" not in schema:
        yield f"{path}: is a map without a bound"


def _pattern_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    pattern = schema.get("pattern")
    if pattern is None:
        return
    if re.search(r"\(\?[=!<]|\\[1-9]", pattern):
        yield f"{path}: RE2 has no look-around and no back reference"
    if any(int(most) > REPEAT_MAX for most in re.findall(r"\{[0-9]*,?([0-9]+)\}", pattern)):
        yield f"{path}: RE2 repeats at most {REPEAT_MAX} times"
    re.compile(pattern)
