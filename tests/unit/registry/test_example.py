"""The registry of this repository: a working example, and its schemas for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.registry import json_schemas, load_folder
from gateway.registry.files import list_folder
from gateway.registry.yaml import load_documents
from tests.unit.registry.folders import Document, Secrets
from tests.unit.registry.test_refusals import BACKENDS, ENVELOPES, KEYS, PROMPTS, SCENARIOS, TENANTS

EXAMPLE = Path(__file__).parents[3] / "registry"
SCHEMAS = EXAMPLE / "schemas"


def checked_in() -> list[str]:
    """Return the example's files, without the local ones that ``make run`` makes."""
    return [file.name for file in list_folder(EXAMPLE).files if not file.name.startswith("local/")]


def test_the_example_is_good_and_needs_nothing() -> None:
    """The example loads without a secret, a problem or a warning, and its demo tenant may use all of it."""
    result = load_folder(EXAMPLE, Secrets(), None, 1.0)
    assert [str(problem) for problem in result.problems] == []
    assert result.warnings == ()
    names = set(result.snapshot.tenants["demo"].scenarios)
    assert names == {"echo", "echo-slow", "support-chat", "gpt-4o", "summarize"}
    assert {backend.provider for backend in result.snapshot.backends.values()} == {"echo"}


def test_the_example_has_no_key() -> None:
    """A key in a repository would be everybody's: ``make run`` makes a fresh one."""
    assert not any("ApiKey" in (EXAMPLE / name).read_text(encoding="utf-8") for name in checked_in())


@pytest.mark.parametrize("name", checked_in())
def test_each_file_names_a_schema_that_accepts_it(name: str) -> None:
    """The first line of each file leads an editor to the schema that its documents follow."""
    path = EXAMPLE / name
    text = path.read_text(encoding="utf-8")
    marker = "# yaml-language-server: $schema="
    assert text.startswith(marker)
    schema_path = path.parent / text.splitlines()[0].removeprefix(marker)
    assert schema_path.resolve().parent == SCHEMAS
    schema = json.loads(schema_path.read_text(encoding="utf-8"))
    for document in load_documents(text.encode()):
        jsonschema_rs.validate(schema, document.value)


def test_the_schemas_are_those_of_the_code() -> None:
    """The checked-in schemas are what ``llm-gateway registry schema`` writes now."""
    made = {f"{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in json_schemas().items()}
    assert {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.iterdir()} == made


def test_the_schemas_are_schemas() -> None:
    """Each schema is valid draft 2020-12 and hides nothing behind a null."""
    for schema in json_schemas().values():
        jsonschema_rs.Draft202012Validator(schema)
        assert '"null"' not in json.dumps(schema)


GOOD: list[Any] = [
    document.value for name in checked_in() for document in load_documents((EXAMPLE / name).read_bytes())
]


@pytest.mark.parametrize("document", [item for item in GOOD if "kind" in item])
def test_the_schema_of_any_kind_accepts_good_documents(document: Document) -> None:
    """One schema serves a file with documents of several kinds."""
    jsonschema_rs.validate(json_schemas()["registry"], document)


SHAPE = ("not a known field", "is required", "must be", "has no value", "at least", "greater than", "duration", "DNS")
BEYOND_A_SCHEMA = ("is required with", "above zero", "from 1", "a mapping with")
REFUSED = [
    pytest.param(document, id=f"{document['kind']} {field}")
    for document, field, reason in [*BACKENDS, *SCENARIOS, *PROMPTS, *TENANTS, *KEYS, *ENVELOPES]
    if any(text in reason for text in SHAPE) and not any(text in reason for text in BEYOND_A_SCHEMA)
    if "1.0" not in str(document)  # an integer, for JSON Schema
    if "limits" not in document.get("spec", {})  # mostly rules between fields
]


@pytest.mark.parametrize("document", REFUSED)
def test_the_schema_of_any_kind_refuses_what_the_loader_refuses(document: Document) -> None:
    """What is wrong in one field alone is seen by an editor too."""
    assert not jsonschema_rs.is_valid(json_schemas()["registry"], document)
