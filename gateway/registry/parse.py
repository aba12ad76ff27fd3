"""From the bytes of one file to candidates: documents identified and validated on their own. Pure.

A candidate is one claim to be an object, good or bad. A file that cannot be taken apart into objects (bad YAML, a
document without kind or name) is not ``whole``: what it held before is then kept, since nobody knows what it holds.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple, get_args

import msgspec

from gateway.model import Frozen, Problem
from gateway.registry import yaml
from gateway.registry.accounts import ApiKeyDocument, PromptDocument, PromptFile, TenantDocument
from gateway.registry.check import Reference, references, validate
from gateway.registry.documents import API_VERSION, BackendDocument, Kind, ScenarioDocument

KINDS: tuple[Kind, ...] = ("Backend", "Prompt", "Scenario", "Tenant", "ApiKey")
"""In the order in which they refer to each other."""

AnyDocument = BackendDocument | PromptDocument | ScenarioDocument | TenantDocument | ApiKeyDocument

MODELS: dict[str, type[AnyDocument]] = {
    "Backend": BackendDocument,
    "Prompt": PromptDocument,
    "Scenario": ScenarioDocument,
    "Tenant": TenantDocument,
    "ApiKey": ApiKeyDocument,
}

_BARE_PROMPT = re.compile(r"prompts/([^/]+)/([^/]+)\.ya?ml")


class ObjectId(NamedTuple):
    """What an object is known by."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class Candidate(Frozen, frozen=True):
    """One document that claims to be an object; ``document`` is None where it is wrong on its own."""

    id: ObjectId
    source: str
    position: tuple[str, int]  # file and document; the order among claims
    content: bytes  # digest of what it says
    document: AnyDocument | None
    references: tuple[Reference, ...] = ()  # of a document that is wrong on its own: what it would need
    problems: tuple[Problem, ...] = ()
    created: int | None = None  # Unix seconds, where the source says when the object was made
    uid: str = ""  # of a resource; another one under the same name is another object


class ParsedFile(Frozen, frozen=True):
    """What a file holds, and what it is known to hold (``held``) where it could not be read whole."""

    digest: bytes
    marks: tuple[int, ...] = ()  # of the file when it was last read, where they can be trusted
    candidates: tuple[Candidate, ...] = ()
    problems: tuple[Problem, ...] = ()
    whole: bool = True
    held: frozenset[ObjectId] = frozenset()

    @property
    def readable(self) -> bool:
        """Tell whether the content could be had at all."""
        return bool(self.digest)


class _Unidentified(Exception):
    def __init__(self, label: str, field: str, reason: str) -> None:
        super().__init__(reason)
        self.label, self.field, self.reason = label, field, reason


def content_digest(content: bytes) -> bytes:
    """Return the digest by which an unchanged file is recognised."""
    return hashlib.sha256(content).digest()


def parse_file(name: str, source: str, content: bytes) -> ParsedFile:
    """Parse one file; ``name`` is its path below the registry, ``source`` the path that problems name."""
    digest = content_digest(content)
    try:
        documents = yaml.load_documents(content)
    except yaml.YamlError as error:
        problem = Problem(source=source, object="", field="", reason=f"is not valid YAML: {error}")
        return ParsedFile(digest=digest, problems=(problem,), whole=False)
    candidates: list[Candidate] = []
    problems: list[Problem] = []
    for index, document in enumerate(documents):
        try:
            candidates.append(_candidate(name, source, index, document.value, alone=len(documents) == 1))
        except _Unidentified as error:
            label = error.label or f"document at line {document.line}"
            problems.append(Problem(source=source, object=label, field=error.field, reason=error.reason))
    return ParsedFile(
        digest=digest,
        candidates=tuple(candidates),
        problems=tuple(problems),
        whole=not problems,
        held=frozenset(candidate.id for candidate in candidates),
    )


def _candidate(name: str, source: str, index: int, value: object, *, alone: bool) -> Candidate:
    if not isinstance(value, dict):
        raise _Unidentified("", "", "must be a mapping with apiVersion, kind, metadata and spec")
    bare = _BARE_PROMPT.fullmatch(name)
    errors: list[tuple[str, str]] = []
    is_bare = bare is not None and "apiVersion" not in value and "kind" not in value
    if bare and is_bare:
        errors, value = _from_bare(bare, value, alone=alone)
    object_id = _identify(value)
    document: AnyDocument | None = None
    if not errors:
        document, errors = validate(MODELS[object_id.kind], value)
        if is_bare:
            errors = [(_bare_field(field), why) for field, why in errors]
    return Candidate(
        id=object_id,
        source=source,
        position=(name, index),
        content=hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest(),
        document=document,
        references=() if document is not None else tuple(references(object_id.kind, value.get("spec"))),
        problems=tuple(Problem(source=source, object=str(object_id), field=field, reason=why) for field, why in errors),
    )


def as_document(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return the document that a value of the file ``name``, found valid, stands for: a bare prompt's in full."""
    bare = _BARE_PROMPT.fullmatch(name)
    if bare is None or "apiVersion" in value or "kind" in value:
        return value
    _, document = _from_bare(bare, value, alone=True)
    return document


def _identify(value: dict[str, Any]) -> ObjectId:
    kind = value.get("kind")
    if kind not in KINDS:
        shown = f"`{kind[:64]}` is not a kind; expected" if isinstance(kind, str) else "must be"
        raise _Unidentified("", "kind", f"{shown} one of {', '.join(get_args(Kind))}")
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        raise _Unidentified(kind, "metadata", "must be a mapping with a name")
    name = metadata.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise _Unidentified(kind, "metadata.name", "is required and must be a DNS subdomain")
    return ObjectId(kind, name[:256])


def _bare_field(field: str) -> str:
    """Name a field of the document as it is written in the bare form."""
    return field.replace("metadata.name", "version").replace("spec.inputVars", "input_vars").removeprefix("spec.")


def _from_bare(
    match: re.Match[str], value: dict[str, Any], *, alone: bool
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Turn ``prompts/NAME/VERSION.yaml`` into the document that it stands for; the name comes from the path."""
    name, version = match.groups()
    errors: list[tuple[str, str]] = []
    if isinstance(value.get("version"), int) and not isinstance(value["version"], bool):
        value = {**value, "version": str(value["version"])}
    _, errors = validate(PromptFile, value)
    if not errors and value["version"] != version:
        errors.append(("version", f"must be {version}, as the file is named"))
    if not alone:
        errors.append(("", "a prompt file must hold one document only"))
    spec = {"inputVars": value.get("input_vars", []), "template": value.get("template")}
    metadata = {"name": f"{name}.{version}"}
    return errors, {"apiVersion": API_VERSION, "kind": "Prompt", "metadata": metadata, "spec": spec}
