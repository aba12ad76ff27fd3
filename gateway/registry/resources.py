"""From custom resources to candidates: the same documents and the same checks as in a folder. Pure.

Invariants:
- What the API server adds (managed fields, status, labels and annotations of tools) is never a reason to refuse.
- A resource whose spec is the same as before gives the very same candidate, so that a change costs what changed.
- Of two claims to one name the older object wins: age is the time of creation, then the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway.model import Problem
from gateway.registry.base import API_VERSION
from gateway.registry.check import references, validate
from gateway.registry.claims import Claims
from gateway.registry.documents import Kind
from gateway.registry.parse import KINDS, MODELS, Candidate, ObjectId
from gateway.registry.values import unix_s

GROUP: Final = API_VERSION.partition("/")[0]
CREDENTIAL_LABEL: Final = f"{GROUP}/credential"
"""Label that a Secret must have before a backend may name it; its value does not matter."""

PLURALS: Final[Mapping[Kind, str]] = {
    "Backend": "backends",
    "Prompt": "prompts",
    "Scenario": "scenarios",
    "Tenant": "tenants",
    "ApiKey": "apikeys",
}
_ADDED_BY_SERVER: Final = frozenset({"apiVersion", "kind", "metadata", "status"})

Resource = Mapping[str, Any]
"""One object as the API server gives it."""


class Parsed(NamedTuple):
    """A resource with the candidate made of it."""

    resource: Resource
    candidate: Candidate


def collection(plural: str, namespace: str) -> str:
    """Return the path of a plural of ours in a namespace."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{plural}"


def parse(kind: Kind, resource: Resource, before: Parsed | None = None) -> Parsed:
    """Make a candidate of a resource; ``before`` is what was made of its last version."""
    if before is not None and _same(before.resource, resource):
        return Parsed(resource, before.candidate)
    return Parsed(resource, _candidate(kind, resource))


def _same(one: Resource, other: Resource) -> bool:
    if one is other:
        return True
    meta, then = one["metadata"], other["metadata"]
    return meta.get("uid") == then.get("uid") and _own(one) == _own(other)


def _own(resource: Resource) -> dict[str, Any]:
    """Return what the author of a resource has written, but for its metadata."""
    return {name: value for name, value in resource.items() if name not in _ADDED_BY_SERVER}


def document_of(kind: Kind, resource: Resource) -> dict[str, Any]:
    """Return the resource as a document of the registry: its kind, its name and what its author has written."""
    name = str(resource["metadata"]["name"])
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, **_own(resource)}


def _candidate(kind: Kind, resource: Resource) -> Candidate:
    value = document_of(kind, resource)
    object_id = ObjectId(kind, value["metadata"]["name"][:256])
    document, errors = validate(MODELS[kind], value)
    metadata = resource["metadata"]
    source = f"{metadata.get('namespace', '')}/{PLURALS[kind]}/{object_id.name}"
    return Candidate(
        id=object_id,
        source=source,
        position=(object_id.name, 0),
        content=hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest(),
        document=document,
        references=() if document is not None else tuple(references(kind, value.get("spec"))),
        problems=tuple(Problem(source=source, object=str(object_id), field=field, reason=why) for field, why in errors),
        created=_created(metadata),
        uid=str(metadata.get("uid", "")),
    )


def _created(metadata: Mapping[str, Any]) -> int | None:
    try:
        return int(unix_s(metadata.get("creationTimestamp")))
    except ValueError:
        return None


def claims_of(parsed: Mapping[ObjectId, Parsed]) -> Claims:
    """Return what the cluster holds; a name is there once, since the API server sees to that."""
    winners = {object_id: item.candidate for object_id, item in parsed.items()}
    return Claims(winners=winners, retained=frozenset(), duplicates=(), problems=())


def parse_all(
    objects: Mapping[Kind, Mapping[tuple[str, str], Resource]], before: Mapping[ObjectId, Parsed]
) -> dict[ObjectId, Parsed]:
    """Parse the objects of every kind; those of ``before`` that are the same are not parsed again."""
    return dict(_parsed(objects, before))


def _parsed(
    objects: Mapping[Kind, Mapping[tuple[str, str], Resource]], before: Mapping[ObjectId, Parsed]
) -> Iterator[tuple[ObjectId, Parsed]]:
    for kind in KINDS:
        for (_, name), resource in objects[kind].items():
            object_id = ObjectId(kind, name)
            yield object_id, parse(kind, resource, before.get(object_id))
