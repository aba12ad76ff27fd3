"""Definitions in the cluster that are older than the gateway are told by the fields that they lack."""

from __future__ import annotations

import copy
from typing import Any

from gateway.registry.crd import definitions
from gateway.registry.installed import missing_fields


def openapi() -> dict[str, Any]:
    """The OpenAPI document of an API server with the definitions of this gateway."""
    schemas = {}
    for kind, definition in definitions().items():
        (version,) = definition["spec"]["versions"]
        group = {"group": "llmgateway.dev", "version": "v1alpha1", "kind": kind}
        schema = version["schema"]["openAPIV3Schema"]
        schemas[f"dev.llmgateway.v1alpha1.{kind}"] = {**schema, "x-kubernetes-group-version-kind": [group]}
    return copy.deepcopy({"openapi": "3.0.0", "components": {"schemas": schemas}})


def test_the_same_definitions_lack_nothing() -> None:
    """No warning where everything is up to date, or where a definition is newer."""
    document = openapi()
    assert missing_fields(document) == []
    backend = document["components"]["schemas"]["dev.llmgateway.v1alpha1.Backend"]
    backend["properties"]["spec"]["properties"]["later"] = {"type": "string"}
    assert missing_fields(document) == []


def test_a_field_that_is_missing_is_named_with_its_path() -> None:
    """At any depth, in lists too; only the topmost."""
    document = openapi()
    schemas = document["components"]["schemas"]
    del schemas["dev.llmgateway.v1alpha1.Backend"]["properties"]["spec"]["properties"]["timeouts"]
    limits = schemas["dev.llmgateway.v1alpha1.Tenant"]["properties"]["spec"]["properties"]["limits"]
    del limits["items"]["properties"]["onRedisLoss"]
    assert missing_fields(document) == ["Backend.spec.timeouts", "Tenant.spec.limits[].onRedisLoss"]


def test_what_is_not_such_a_document_says_nothing() -> None:
    """A warning needs knowledge."""
    documents: list[object] = [None, [], {}, {"components": []}, {"components": {"schemas": {"x": 1, "y": {}}}}]
    for document in documents:
        assert missing_fields(document) == []
