"""The definitions of the custom resources are made from the models, and are up to date."""

from __future__ import annotations

from pathlib import Path

from gateway.registry.crd import definitions, render
from gateway.registry.resources import PLURALS

FILES = Path(__file__).resolve().parents[2] / "charts/llm-gateway-crds/files"


def test_the_definitions_are_those_of_the_models() -> None:
    """A field that is added, changed or removed changes the chart; ``make docs`` writes it."""
    found = {path.name: path.read_text(encoding="utf-8") for path in FILES.glob("*.yaml")}
    made = {f"{PLURALS[kind]}.yaml": render(definition) for kind, definition in definitions().items()}
    assert found == made, "run `make docs`"
