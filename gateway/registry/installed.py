"""Tells whether the definitions in the cluster are older than this gateway: which of its fields they do not know. Pure.

What is installed is read from the OpenAPI document of the group, ``/openapi/v3/apis/llmgateway.dev/v1alpha1``, which
every service account may read (ClusterRole ``system:discovery``); the definitions themselves are objects of the
cluster, which a gateway has no right to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.registry.base import API_VERSION
from gateway.registry.crd import resource_schema
from gateway.registry.parse import KINDS
from gateway.registry.schema import json_schemas

PATH: Final = f"/openapi/v3/apis/{API_VERSION}"
_KIND: Final = "x-kubernetes-group-version-kind"


def missing_fields(document: object) -> list[str]:
    """Return the fields, as ``Kind.spec.field``, that the installed definitions lack; [] where they are up to date."""
    installed = {kind: schema for schema in _schemas(document) for kind in _kinds(schema)}
    own = json_schemas()
    return [
        f"{kind}{path}"
        for kind in KINDS
        if kind in installed
        for path in _missing(resource_schema(kind, own[kind.lower()]), installed[kind], "")
    ]


def _schemas(document: object) -> Iterator[Mapping[str, Any]]:
    components = document.get("components") if isinstance(document, Mapping) else None
    schemas = components.get("schemas") if isinstance(components, Mapping) else None
    if isinstance(schemas, Mapping):
        yield from (schema for schema in schemas.values() if isinstance(schema, Mapping))


def _kinds(schema: Mapping[str, Any]) -> Iterator[str]:
    named = schema.get(_KIND)
    for each in named if isinstance(named, list) else []:
        if isinstance(each, Mapping) and f"{each.get('group')}/{each.get('version')}" == API_VERSION:
            yield str(each.get("kind"))


def _missing(own: Mapping[str, Any], installed: object, path: str) -> Iterator[str]:
    """Yield the topmost fields that are there on one side only."""
    if not isinstance(installed, Mapping):
        return
    known = installed.get("properties")
    for name, schema in own.get("properties", {}).items():
        if not isinstance(known, Mapping) or path + name in ("apiVersion", "kind", "metadata"):
            continue
        if name not in known:
            yield f"{path}.{name}"
        else:
            yield from _missing(schema, known[name], f"{path}.{name}")
    if "items" in own:
        yield from _missing(own["items"], installed.get("items"), f"{path}[]")
