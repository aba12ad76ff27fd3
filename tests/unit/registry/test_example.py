"""The registry of this repository: a working example, and its schemas for editors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.registry import json_schemas, load_folder
from gateway.registry.files import list_folder
from gateway.registry.yaml import load_documents
from tests.unit.registry.folders import Document, Folder, Secrets
from tests.unit.registry.test_refusals import BACKENDS, ENVELOPES, KEYS, PROMPTS, SCENARIOS, TENANTS

EXAMPLE = Path(__file__).parents[3] / "registry"
SCHEMAS = EXAMPLE / "schemas"


def checked_in() -> list[str]:
    """Return the example's files, without the local ones that ``make run`` makes."""
    return [file.name for file in list_folder(EXAMPLE).files if not file.name.startswith("local/")]


def test_the_example_is_good_and_needs_nothing(tmp_path: Path) -> None:
    """The example loads without a secret, a problem or a warning, and its demo tenant may use all of it."""
    shutil.copytree(EXAMPLE, tmp_path / "registry", ignore=shutil.ignore_patterns("local"))
    result = load_folder(tmp_path / "registry", Secrets(), None, 1.0)
    assert [str(problem) for problem in result.problems] == []
    assert result.warnings == ()
    names = set(result.snapshot.tenants["demo"].scenarios)
    assert names == {"echo", "echo-slow", "support-chat", "gpt-4o", "summarize", "rewrite", "rollout"}
    assert {backend.provider for backend in result.snapshot.backends.values()} == {"echo"}


WRITTEN_BY_HAND = """
apiVersion: llmgateway.dev/v1alpha1
kind: Backend                       # a model endpoint
metadata: {name: qwen}
spec:
  provider: openai
  url: http://vllm.models.svc:8000/v1
  model: Qwen/Qwen2.5-7B-Instruct   # the name sent upstream
  auth: {type: bearer, secret: {env: LLM_GATEWAY_SECRET_QWEN}}
  headers: {x-team: llm}
  timeouts: {connect: 2s, firstByte: 60s, idle: 30s, total: 9m}
  maxConcurrentRequests: 64
  maxOutputTokens: 8192
  price: {inputPerMillion: "0.50", cachedInputPerMillion: "0.10", outputPerMillion: "1.50"}
  disabled: false
---
apiVersion: llmgateway.dev/v1alpha1
kind: Scenario
metadata: {name: support-chat}
spec:
  description: Customer support assistant
  aliases: [gpt-4o]
  prompt: summarize.v1
  parameters:
    defaults: {temperature: 0.3}
    overrides: {}
    maxOutputTokens: 1024
  targets: [{backend: qwen, weight: 90}]
  fallbacks: [qwen]
  cache: {mode: none, ttl: 10m}
  access: {tenants: ["*"]}
---
apiVersion: llmgateway.dev/v1alpha1
kind: Prompt
metadata: {name: summarize.v1}
spec: {inputVars: [context], template: "Summarise the following: {context}"}
---
apiVersion: llmgateway.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  displayName: Acme Corp
  scenarios: ["*"]
  limits:
  - {unit: requests, per: minute, amount: 600}
  - {unit: tokens, per: minute, amount: 200000, burst: 50000}
  - {unit: tokens, per: minute, amount: 20000, scenario: support-chat}
  - {unit: concurrency, amount: 50}
  - {unit: tokens, per: day, amount: 5000000}
  - {unit: cost, per: month, amount: "400", onRedisLoss: closed, mode: enforce}
  ipAllowList: [10.0.0.0/8]
  oidc: {issuer: "https://idp.example", audience: llm-gateway, claim: tenant, value: acme}
---
apiVersion: llmgateway.dev/v1alpha1
kind: ApiKey
metadata: {name: acme-ci}
spec:
  tenant: acme
  digests: [{sha256: "%s", expiresAt: 2027-01-01T00:00:00Z}]
  scenarios: [support-chat]
  limits: []
"""


def test_the_whole_format_as_people_write_it(folder: Folder) -> None:
    """Every field of the format, in YAML with comments and short forms, loads and passes the schema."""
    text = WRITTEN_BY_HAND % ("ab" * 32)
    folder.secrets.variables["LLM_GATEWAY_SECRET_QWEN"] = b"sk-1"
    folder.write("all.yaml", text)
    snapshot = folder.good()
    assert snapshot.keys[b"\xab" * 32].principal.tenant.scenarios["gpt-4o"].name == "support-chat"
    for document in load_documents(text.encode()):
        jsonschema_rs.validate(json_schemas()["registry"], document.value)


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
