"""One look at a registry shows everything that is wrong with a document, whatever else is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.registry.check import validate
from gateway.registry.parse import MODELS
from tests.unit.registry.folders import DIGEST, Document, Folder, api_key, backend, scenario, tenant, with_field

LIMIT = {"unit": "tokens", "per": "minute", "amount": 100}
SECRET = {"env": "LLM_GATEWAY_SECRET_QWEN"}

SEVERAL: list[tuple[Document, list[str]]] = [
    (  # one is wrong on its own, one together with the rest, one twice, one goes well
        backend(headers={"Content-Length": "5", "Authorization": "x", "X-A": "1", "x-a": "2", "x-good": "y"}),
        ["spec.headers.Content-Length", "spec.headers.authorization", "spec.headers.x-a"],
    ),
    (
        backend(headers={"api-key": "x", "cookie": "y", "x.token": "z\n"}, url="ftp://x", disabled=None),
        ["spec.disabled", "spec.headers.api-key", "spec.headers.cookie", "spec.headers.x.token", "spec.url"],
    ),
    (backend(headers={"host": "a"}, auth={"type": "bearer"}), ["spec.auth.secret", "spec.headers.host"]),
    (
        scenario(aliases=["", "b", "b"], targets=[{"backend": "x", "weight": 0}], cache={"mode": "no"}),
        ["spec.aliases[0]", "spec.cache.mode", "spec.targets"],
    ),
    (
        scenario(parameters={"maxOutputTokens": 0, "defaults": {"model": "x"}, "overrides": {"stream": 1}}),
        ["spec.parameters.defaults.model", "spec.parameters.maxOutputTokens", "spec.parameters.overrides.stream"],
    ),
    (
        tenant(limits=[{**LIMIT, "burst": 0, "amount": 0}, {**LIMIT, "per": "day", "burst": 3}], scenarios=["a", "a"]),
        ["spec.limits[0].amount", "spec.limits[0].burst", "spec.limits[1].burst", "spec.scenarios[1]"],
    ),
]

ONE_CAUSE: list[tuple[Document, str]] = [
    (backend(url="ftp://x"), "spec.url"),
    (backend(auth={"type": "bearer", "secret": {"env": "HOME"}}), "spec.auth.secret.env"),
    (backend(auth={"type": "header", "name": "Host", "secret": SECRET}), "spec.auth.name"),
    (backend(auth={"type": "basic", "secret": SECRET}), "spec.auth.type"),
    (scenario(targets=["qwen"]), "spec.targets[0]"),
    (scenario(targets=[{"backend": "Q"}]), "spec.targets[0].backend"),
    (api_key(digests=[{"sha256": "ab"}]), "spec.digests[0].sha256"),
    (tenant(limits=[{**LIMIT, "unit": "words"}]), "spec.limits[0].unit"),
    (tenant(limits=[{**LIMIT, "per": "week"}]), "spec.limits[0].per"),
]


def fields(document: Document) -> list[str]:
    """The fields that are wrong."""
    return sorted(field for field, _ in validate(MODELS[document["kind"]], document)[1])


@pytest.mark.parametrize(("document", "expected"), SEVERAL)
def test_no_error_hides_another(document: Document, expected: list[str]) -> None:
    """Errors of fields, of models and of rules over several fields are told at once."""
    assert fields(document) == expected


@pytest.mark.parametrize(("document", "field"), ONE_CAUSE)
def test_one_mistake_is_one_error(document: Document, field: str) -> None:
    """What only follows from an error is not told."""
    assert fields(document) == [field]


def test_references_of_a_wrong_document_are_checked(folder: Folder) -> None:
    """A backend, a prompt, scenarios and tenants that are not there, each beside a field that is wrong."""
    folder.write(
        "a.yaml", scenario(targets=[{"backend": "ghost", "weight": 0}], fallbacks=["G", "ghost"], prompt="p.v1")
    )
    folder.write("b.yaml", api_key(tenant="ghost", digests=[{"sha256": "x"}], scenarios=["*", "nothing"]))
    folder.write("c.yaml", tenant("t", disabled=1, limits=[{**LIMIT, "scenario": "nothing"}]))
    assert folder.problems() == [
        ("a.yaml", "Scenario/chat", "spec.fallbacks[0]"),
        ("a.yaml", "Scenario/chat", "spec.fallbacks[1]"),
        ("a.yaml", "Scenario/chat", "spec.prompt"),
        ("a.yaml", "Scenario/chat", "spec.targets"),
        ("a.yaml", "Scenario/chat", "spec.targets[0].backend"),
        ("b.yaml", "ApiKey/acme-ci", "spec.digests[0].sha256"),
        ("b.yaml", "ApiKey/acme-ci", "spec.scenarios[1]"),
        ("b.yaml", "ApiKey/acme-ci", "spec.tenant"),
        ("c.yaml", "Tenant/t", "spec.disabled"),
        ("c.yaml", "Tenant/t", "spec.limits[0].scenario"),
    ]


def test_references_that_resolve_are_no_errors(folder: Folder) -> None:
    """A wrong document beside good ones has its own error only."""
    folder.write("good.yaml", backend(), scenario(), tenant())
    folder.write("bad.yaml", scenario("worse", targets=[{"backend": "qwen", "weight": 0}]))
    folder.write("key.yaml", api_key(disabled=1, digests=[{"sha256": DIGEST}], scenarios=["chat"]))
    assert folder.problems() == [
        ("bad.yaml", "Scenario/worse", "spec.targets"),
        ("key.yaml", "ApiKey/acme-ci", "spec.disabled"),
    ]


@pytest.mark.parametrize(
    "document",
    [
        with_field(scenario(), "spec", [1]),
        scenario(targets={"a": 1}, access=[], fallbacks=[[]]),
        scenario(targets=[[], {"backend": ["x"]}, 5]),
        tenant(limits=[5, {"scenario": {}}], scenarios={}),
        api_key(tenant=[], digests=[[]], scenarios=[{}]),
    ],
)
def test_any_shape_is_refused_and_not_stumbled_over(folder: Folder, document: dict[str, Any]) -> None:
    """JSON of the wrong shape is an error like any other."""
    folder.write("a.yaml", document)
    assert folder.load().problems


def test_bounds_of_lists_are_told_in_plain_words(folder: Folder) -> None:
    """No library speaks in its own words."""
    folder.write("a.yaml", backend(), scenario(fallbacks=[f"b{number}" for number in range(17)]))
    reasons = {problem.field: problem.reason for problem in folder.load().problems}
    assert reasons["spec.fallbacks"] == "must have at most 16 items"
