"""Between a folder and the cluster: which documents there are, and in what they differ. Pure, but it reads the folder.

Invariant: a document is what its author wrote. Nothing that an API server or a tool added leaves the cluster, no Secret
is read or written, and what does not differ is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from gateway.registry.files import list_folder, read_file
from gateway.registry.parse import KINDS, ObjectId, as_document
from gateway.registry.resources import Resource, document_of
from gateway.registry.yaml import load_documents

Document = dict[str, Any]

_TOOLS: Final = ("app.kubernetes.io/managed-by", "helm.sh/", "kustomize.toolkit.fluxcd.io/", "argocd.argoproj.io/")
"""Labels by which tools know what is theirs; a copy of the document is not."""


_NUMBER_STARTS: Final = frozenset("+-.0123456789")


class Difference(NamedTuple):
    """One document that the cluster does not hold as it is: ``fields`` differ; none of a document that is new."""

    id: ObjectId
    document: Document
    fields: tuple[str, ...]
    is_new: bool


def folder_documents(folder: Path) -> dict[ObjectId, Document]:
    """Read the documents of a folder that was found valid; bare prompts in their full form."""
    found: dict[ObjectId, Document] = {}
    for file in list_folder(folder).files:
        for document in load_documents(read_file(folder, file.name)):
            assert isinstance(document.value, dict)
            value = as_document(file.name, document.value)
            found[ObjectId(value["kind"], value["metadata"]["name"])] = value
    return dict(sorted(found.items(), key=lambda item: (KINDS.index(item[0].kind), item[0].name)))


def cluster_document(object_id: ObjectId, resource: Resource) -> Document:
    """Return a resource as its author would write it, labels included."""
    document = document_of(object_id.kind, resource)
    labels = resource["metadata"].get("labels") or {}
    kept = {name: value for name, value in sorted(labels.items()) if not name.startswith(_TOOLS)}
    if kept:
        document["metadata"] = {**document["metadata"], "labels": kept}
    return document


def differences(wanted: Mapping[ObjectId, Document], there: Mapping[ObjectId, Resource]) -> Iterator[Difference]:
    """Yield what would have to be written so that the cluster holds the wanted documents."""
    for object_id, document in wanted.items():
        resource = there.get(object_id)
        if resource is None:
            yield Difference(object_id, document, (), is_new=True)
            continue
        fields = tuple(_differing(document, document_of(object_id.kind, resource), resource["metadata"]))
        if fields:
            yield Difference(object_id, document, fields, is_new=False)


def _differing(document: Document, present: Document, metadata: Mapping[str, Any]) -> Iterator[str]:
    names = (document.keys() | present.keys()) - {"metadata", "apiVersion", "kind"}
    for name in sorted(names):
        yield from _paths(document.get(name), present.get(name), name)
    for part in ("labels", "annotations"):
        there = metadata.get(part) or {}
        for name, value in (document["metadata"].get(part) or {}).items():
            if there.get(name) != value:
                yield f"metadata.{part}.{name}"


def _paths(one: object, other: object, path: str) -> Iterator[str]:
    """Yield the paths at which two values differ, lists as a whole."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from _paths(one.get(name, _Missing), other.get(name, _Missing), f"{path}.{name}")
    elif not _equal(one, other):
        yield path


def _equal(one: object, other: object) -> bool:
    """Tell whether two JSON values are the same: 1.0 is 1, as an API server keeps it, and true is neither."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    return one == other and isinstance(one, bool) is isinstance(other, bool)


class _Dumper(yaml.SafeDumper):
    """Writes as a person would: texts of several lines as such."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # whatever it is
        """Never write a reference: it would not be read."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    """Quote what starts like a number: YAML 1.2, as it is read here, has other numbers than PyYAML knows."""
    style = "|" if "\n" in value else '"' if value[:1] in _NUMBER_STARTS else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(document: Document) -> str:
    """Return a document as the registry reads it."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Missing:
    """Stands for what is not there."""
