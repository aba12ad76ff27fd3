"""In what a document and the resource in the cluster differ."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.registry.parse import ObjectId
from gateway.registry.transfer import differences
from tests.support.documents import document

CHAT = ObjectId("Scenario", "chat")


def differing(wanted: dict[str, Any], there: dict[str, Any]) -> tuple[str, ...]:
    """The fields that an import would write."""
    found = differences({CHAT: document("Scenario", "chat", wanted)}, {CHAT: document("Scenario", "chat", there)})
    return tuple(field for each in found for field in each.fields)


@pytest.mark.parametrize(
    ("wanted", "stored"),
    [
        ({"cache": {"threshold": 1.0}}, {"cache": {"threshold": 1}}),
        (
            {"parameters": {"defaults": {"bias": [1.0, {"x": 2.0}]}}},
            {"parameters": {"defaults": {"bias": [1, {"x": 2}]}}},
        ),
    ],
)
def test_a_number_that_the_api_server_wrote_shorter_is_the_same(wanted: dict[str, Any], stored: dict[str, Any]) -> None:
    """It keeps 1.0 as 1: an import that saw a change there would apply it every time."""
    assert differing(wanted, stored) == ()


def test_other_values_differ_by_their_paths() -> None:
    """Down to the field; lists as a whole, and what Python takes for equal is not."""
    wanted: dict[str, Any] = {"disabled": True, "aliases": ["a"], "parameters": {"defaults": {"n": [True], "x": 1}}}
    stored: dict[str, Any] = {"disabled": 1, "aliases": [], "parameters": {"defaults": {"n": [1], "x": 2}}}
    assert differing(wanted, stored) == (
        "spec.aliases",
        "spec.disabled",
        "spec.parameters.defaults.n",
        "spec.parameters.defaults.x",
    )
