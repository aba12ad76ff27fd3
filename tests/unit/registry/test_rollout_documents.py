"""Conditions, canaries and shadows in documents: what is refused, and what is compiled of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.model import Abort, Canary, Condition, Shadow, Snapshot
from gateway.registry import load_folder
from tests.unit.registry.folders import (
    Document,
    Folder,
    Secrets,
    backend,
    backend_names,
    echo,
    prompt,
    scenario,
    tenant,
)

NEW: dict[str, Any] = {"targets": [{"backend": "new"}]}


def when(**condition: Any) -> Document:
    """A scenario with a target under this condition, and one without."""
    return scenario(targets=[{"backend": "qwen"}, {"backend": "new", "when": condition}])


def only(*targets: dict[str, Any], **spec: Any) -> Document:
    """A scenario of these targets, each under the condition that there are tools unless it says otherwise."""
    return scenario(targets=[{"backend": "new", "when": {"tools": True}} | each for each in targets], **spec)


def canary(**fields: Any) -> Document:
    """A scenario with this canary."""
    return scenario(canary={"percent": 5, "override": NEW} | fields)


WRONG: list[tuple[Document, str, str]] = [
    (when(), "spec.targets[1].when", "says nothing"),
    (when(tenants=[]), "spec.targets[1].when.tenants", "at least 1 item"),
    (when(tenants=["Acme"]), "spec.targets[1].when.tenants[0]", "DNS label"),
    (when(keys=["a", "a"]), "spec.targets[1].when.keys[1]", "listed twice"),
    (when(requestBytes={"min": 5, "max": 4}), "spec.targets[1].when.requestBytes.max", "no request is of such a size"),
    (when(requestBytes={}), "spec.targets[1].when.requestBytes", "says nothing"),
    (when(requestBytes={"min": 2**31}), "spec.targets[1].when.requestBytes.min", "less than or equal"),
    (when(tools="yes"), "spec.targets[1].when.tools", "must be true or false"),
    (when(model="x"), "spec.targets[1].when.model", "not a known field"),
    (when(headers={"X-Region": ["eu"]}), "spec.targets[1].when.headers.X-Region", "in lower case"),
    (when(headers={"x-region": []}), "spec.targets[1].when.headers.x-region", "at least 1 item"),
    (when(headers={"x-region": "eu"}), "spec.targets[1].when.headers.x-region", "must be a list"),
    (when(headers={"x-region": ["eu", "eu"]}), "spec.targets[1].when.headers.x-region", "listed twice"),
    (
        scenario(targets=[{"backend": "qwen"}, {"backend": "new", "weight": 0, "when": {"tools": True}}]),
        "spec.targets[1].weight",
        "above zero where there is a condition",
    ),
    (
        scenario(targets=[{"backend": "qwen", "weight": 0}, {"backend": "new", "when": {"tools": True}}]),
        "spec.targets",
        "weight above zero without `when`",
    ),
    (
        only({"when": {"tenants": ["a", "b"]}}, {"when": {"tenants": ["b", "a"]}}, unmatched="refuse"),
        "spec.targets[1].backend",
        "listed twice under this condition",
    ),
    (only({}), "spec.targets", "all have a condition"),
    (only({}, unmatched="fallbacks"), "spec.fallbacks", "are empty"),
    (scenario(unmatched="refuse"), "spec.unmatched", "has no effect"),
    (scenario(unmatched="ignore"), "spec.unmatched", "must be 'refuse' or 'fallbacks'"),
    (canary(percent=101), "spec.canary.percent", "less than or equal to 100"),
    (canary(percent="5"), "spec.canary.percent", "must be a valid number"),
    (canary(sticky="ip"), "spec.canary.sticky", "must be 'request', 'key', 'tenant' or 'user'"),
    (canary(override={}), "spec.canary.override", "must replace something"),
    (canary(override={"cache": {}}), "spec.canary.override.cache", "not a known field"),
    (canary(override={"targets": []}), "spec.canary.override.targets", "at least 1 item"),
    (canary(override={"fallbacks": ["new", "new"]}), "spec.canary.override.fallbacks[1]", "listed twice"),
    (
        canary(override={"parameters": {"defaults": {"model": "x"}}}),
        "spec.canary.override.parameters.defaults.model",
        "decided by",
    ),
    (
        canary(override={"targets": [{"backend": "new", "when": {"tools": True}}]}),
        "spec.canary.override.targets",
        "all have a condition",
    ),
    (canary(abort={}), "spec.canary.abort", "must have errorRatio or firstTokenP95"),
    (canary(abort={"errorRatio": 1}), "spec.canary.abort.errorRatio", "less than 1"),
    (canary(abort={"firstTokenP95": "0s"}), "spec.canary.abort.firstTokenP95", "longer than zero"),
    (canary(abort={"errorRatio": 0.1, "minRequests": 9}), "spec.canary.abort.minRequests", "greater than or equal"),
    (scenario(canary={"override": NEW}), "spec.canary.percent", "is required"),
    (scenario(shadow={"percent": 5}), "spec.shadow.override", "is required"),
    (scenario(shadow={"percent": 5, "override": NEW, "abort": {}}), "spec.shadow.abort", "not a known field"),
]


@pytest.mark.parametrize(("document", "field", "reason"), WRONG)
def test_refused_with_field_and_reason(folder: Folder, document: Document, field: str, reason: str) -> None:
    """One problem names the field and the reason; nothing of the scenario serves."""
    folder.write("all.yaml", backend(), backend("new"), document)
    problem = folder.problem()
    assert (problem.field, reason in problem.reason) == (field, True), str(problem)


MISSING: list[tuple[Document, str, str]] = [
    (
        canary(override={"targets": [{"backend": "nwe"}]}),
        "spec.canary.override.targets[0].backend",
        "did you mean `new`",
    ),
    (canary(override={"fallbacks": ["none"]}), "spec.canary.override.fallbacks[0]", "no Backend `none`"),
    (canary(override={"prompt": "none.v1"}), "spec.canary.override.prompt", "no Prompt `none.v1`"),
    (scenario(shadow={"percent": 1, "override": {"prompt": "none.v1"}}), "spec.shadow.override.prompt", "no Prompt"),
    (when(tenants=["nobody"]), "spec.targets[1].when.tenants[0]", "no Tenant `nobody`"),
    (when(tenants=["narrow"]), "spec.targets[1].when.tenants[0]", "not in the tenant's spec.scenarios"),
    (
        scenario(
            targets=[{"backend": "qwen"}, {"backend": "new", "when": {"tenants": ["wide"]}}],
            access={"tenants": ["narrow"]},
        ),
        "spec.targets[1].when.tenants[0]",
        "not in spec.access.tenants",
    ),
]


@pytest.mark.parametrize(("document", "field", "reason"), MISSING)
def test_what_is_not_there_or_not_allowed_is_refused(
    folder: Folder, document: Document, field: str, reason: str
) -> None:
    """References of overrides and conditions are told like all others; a tenant must be able to ask at all."""
    others = [backend(), backend("new"), tenant("wide"), tenant("narrow", scenarios=["other"]), scenario("other")]
    folder.write("all.yaml", *others, document)
    problem = folder.problem()
    assert (problem.field, reason in problem.reason) == (field, True), str(problem)


def test_references_of_a_document_that_is_wrong_on_its_own_are_told_too(folder: Folder) -> None:
    """Who mends it sees everything at once."""
    folder.write("all.yaml", backend(), canary(percent=200, override={"prompt": "none.v1", "fallbacks": ["none"]}))
    assert sorted(field for _, _, field in folder.problems()) == [
        "spec.canary.override.fallbacks[0]",
        "spec.canary.override.prompt",
        "spec.canary.percent",
    ]


def test_a_header_must_be_one_that_the_operator_lists(folder: Folder) -> None:
    """Whoever looks at documents from afar does not know the list, and lets any pass."""
    folder.write("all.yaml", backend(), backend("new"), when(headers={"x-region": ["eu"], "x-tier": ["gold"]}))
    folder.good()
    result = load_folder(folder.path, Secrets(), None, 1.0, routing_headers=frozenset({"x-tier"}))
    (problem,) = result.problems
    assert (problem.field, problem.reason) == (
        "spec.targets[1].when.headers.x-region",
        "is not a header that LLM_GATEWAY_ROUTING_HEADERS lists",
    )


def loaded(folder: Folder, **spec: Any) -> Snapshot:
    """The registry with a scenario of this spec."""
    folder.write(
        "all.yaml", backend(), backend("new"), echo(), prompt(), prompt("support.v3", "Be brief."), scenario(**spec)
    )
    return folder.good()


FULL: dict[str, Any] = {
    "prompt": "support.v2",
    "parameters": {"defaults": {"temperature": 0.3}, "maxOutputTokens": 10},
    "fallbacks": ["echo"],
    "canary": {
        "percent": 2.5,
        "sticky": "user",
        "override": {"prompt": "support.v3", "targets": [{"backend": "new", "weight": 3}], "fallbacks": []},
        "abort": {"errorRatio": 0.05, "firstTokenP95": "1500ms", "minRequests": 20},
    },
    "shadow": {"percent": 1, "override": {"parameters": {"overrides": {"temperature": 0}}}},
}


def variants(folder: Folder, **spec: Any) -> tuple[Canary, Shadow]:
    """The variants of the scenario of this spec."""
    found = loaded(folder, **spec).scenarios["chat"]
    assert found.canary is not None
    assert found.shadow is not None
    return found.canary, found.shadow


def test_a_variant_is_a_whole_scenario_with_what_it_overrides(folder: Folder) -> None:
    """A field that is given is replaced whole, everything else is the base's."""
    canary, shadow = variants(folder, **FULL)
    base = folder.good().scenarios["chat"]
    new = canary.scenario
    assert (base.variant, new.variant, shadow.scenario.variant) == ("base", "canary", "shadow")
    assert {each.name for each in (base, new, shadow.scenario)} == {"chat"}
    assert new.prompt is not None
    assert new.prompt.name == "support.v3"
    assert (backend_names(new), new.fallbacks, new.parameters) == (["new"], (), base.parameters)
    assert (new.canary, new.shadow, shadow.scenario.shadow) == (None, shadow, None)
    assert (canary.percent, canary.sticky) == (2.5, "user")
    assert canary.abort == Abort(error_ratio=0.05, first_token_p95_s=1.5, min_requests=20)
    assert shadow.scenario.prompt == base.prompt
    assert (dict(shadow.scenario.parameters.defaults), shadow.scenario.parameters.max_output_tokens) == ({}, None)
    assert backend_names(shadow.scenario) == ["qwen"]


def test_a_rollout_has_one_name_for_one_spec(folder: Folder, tmp_path: Any) -> None:
    """Another process, order of keys or load makes no difference; any change of the spec does."""
    names = {variants(folder, **FULL)[0].rollout, variants(folder, **dict(reversed(FULL.items())))[0].rollout}
    assert len(names) == 1
    for change in ({"description": "again"}, {"canary": FULL["canary"] | {"percent": 3}}, {"disabled": True}):
        names.add(variants(folder, **(FULL | change))[0].rollout)
    assert len(names) == 4


def test_a_scenario_without_conditions_or_variants_has_nothing_of_them(folder: Folder) -> None:
    """So that a request of it pays for nothing."""
    plain = loaded(folder).scenarios["chat"]
    assert (plain.conditional, plain.canary, plain.shadow, plain.targets[0].when) == (False, None, None, None)


def test_a_condition_is_compiled(folder: Folder) -> None:
    """Every field of it."""
    condition = {
        "keys": ["a", "b"],
        "requestBytes": {"min": 10, "max": 20},
        "tools": True,
        "images": False,
        "headers": {"x-tier": ["gold", "silver"], "x-region": ["eu"]},
    }
    found = loaded(folder, targets=[{"backend": "qwen"}, {"backend": "new", "when": condition}]).scenarios["chat"]
    assert found.conditional
    assert found.targets[1].when == Condition(
        keys=frozenset({"a", "b"}),
        min_bytes=10,
        max_bytes=20,
        tools=True,
        images=False,
        headers=(("x-region", frozenset({"eu"})), ("x-tier", frozenset({"gold", "silver"}))),
    )


def test_the_same_backend_may_serve_under_several_conditions(folder: Folder) -> None:
    """And the same condition may share its requests among several backends."""
    targets = [
        {"backend": "qwen"},
        {"backend": "new", "when": {"tools": True}},
        {"backend": "echo", "weight": 9, "when": {"tools": True}},
        {"backend": "new", "when": {"images": True}},
    ]
    assert len(loaded(folder, targets=targets).scenarios["chat"].targets) == 4


def test_a_last_good_scenario_keeps_its_variants_up_to_date(folder: Folder) -> None:
    """A document that went bad goes on serving with its canary, whose backend is that of the registry now."""
    folder.write("new.yaml", backend("new"))
    folder.write("all.yaml", backend(), tenant(), canary())
    before = folder.good().scenarios["chat"]
    folder.write("new.yaml", backend("new", model="other"))
    folder.write("all.yaml", backend(), tenant(), scenario(prompt="gone.v1", canary={"percent": 5, "override": NEW}))
    after = folder.load().snapshot.scenarios["chat"]
    assert before.canary is not None
    assert after.canary is not None
    assert after.canary.rollout == before.canary.rollout
    assert after.canary.scenario.targets[0].backend.model == "other"
