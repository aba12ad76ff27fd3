"""A registry folder to write to, load from, and load again; and good documents to start from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from gateway.model import Problem, Scenario, Snapshot
from gateway.registry import LoadResult, LoadState, load_folder

Document = dict[str, Any]

DIGEST = "ab" * 32


class Secrets:
    """A secret source made of two dictionaries."""

    def __init__(self) -> None:
        self.variables: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.in_cluster = False

    def env(self, name: str) -> bytes:
        if name not in self.variables:
            raise LookupError(f"{name} is not set")
        return self.variables[name]

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise LookupError(f"{name} is not there")
        return self.files[name]

    def ref(self, name: str, key: str) -> bytes:
        raise ValueError("is read from the Kubernetes API only; in a folder use env or file")


class Folder:
    """A folder with the state of its last load; each load is ten seconds after the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.secrets = Secrets()
        self.state: LoadState | None = None
        self.now = 1_000_000.0

    def write(self, name: str, *documents: Document | str) -> Path:
        """Write a file with these documents, as text or to be turned into YAML (JSON is YAML)."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [item if isinstance(item, str) else json.dumps(item, indent=1) for item in documents]
        path.write_text("\n---\n".join(texts) + "\n", encoding="utf-8")
        return path

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def load(self) -> LoadResult:
        self.now += 10
        result = load_folder(self.path, self.secrets, self.state, self.now)
        self.state = result.state
        return result

    def good(self) -> Snapshot:
        """Load what must have no problem."""
        result = self.load()
        assert [str(problem) for problem in result.problems] == []
        return result.snapshot

    def problems(self) -> list[tuple[str, str, str]]:
        """Load, and return file, object and field of each problem."""
        return [(self.below(problem), problem.object, problem.field) for problem in self.load().problems]

    def problem(self) -> Problem:
        """Load what must have exactly one problem."""
        problems = self.load().problems
        assert len(problems) == 1, [str(problem) for problem in problems]
        return problems[0]

    def below(self, problem: Problem) -> str:
        return problem.source.removeprefix(str(self.path)).removeprefix("/")


def document(kind: str, name: str, spec: dict[str, Any]) -> Document:
    """Return a document of any kind."""
    return {"apiVersion": "llmgateway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def backend(name: str = "qwen", **spec: Any) -> Document:
    """Return a backend that needs no secret."""
    return document("Backend", name, {"provider": "openai", "url": "http://vllm:8000/v1", "model": "qwen-7b", **spec})


def service_backend(backend_name: str = "qwen", **service: Any) -> Document:
    """Return a backend of this Service instead of a URL."""
    reference = {"name": "vllm", "namespace": "models", "port": 8000, **service}
    return document("Backend", backend_name, {"provider": "openai", "service": reference})


def echo(name: str = "echo", **spec: Any) -> Document:
    """Return a backend that answers in process."""
    return document("Backend", name, {"provider": "echo", **spec})


def scenario(name: str = "chat", target: str = "qwen", **spec: Any) -> Document:
    """Return a scenario for everybody."""
    body = {"targets": [{"backend": target, "weight": 1}], "access": {"tenants": ["*"]}, **spec}
    return document("Scenario", name, body)


def prompt(name: str = "support.v2", template: str = "Be kind.", **spec: Any) -> Document:
    """Return a prompt without variables."""
    return document("Prompt", name, {"template": template, **spec})


def tenant(name: str = "acme", **spec: Any) -> Document:
    """Return a tenant that may use whatever is offered to it."""
    return document("Tenant", name, {"scenarios": ["*"], **spec})


def api_key(name: str = "acme-ci", **spec: Any) -> Document:
    """Return a key of tenant acme."""
    return document("ApiKey", name, {"tenant": "acme", "digests": [{"sha256": DIGEST}], **spec})


def with_field(item: Document, path: str, value: Any) -> Document:
    """Return a copy with one field set; ``path`` has dots, and numbers for list items."""
    result: Document = copy.deepcopy(item)
    node: Any = result
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        node = node[part]
    node[last] = value
    return result


def backend_names(scenario: Scenario) -> list[str]:
    """Return the targets of a scenario by name."""
    return [target.backend.name for target in scenario.targets]
