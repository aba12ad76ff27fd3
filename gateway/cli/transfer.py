"""``registry import`` and ``registry export``: a registry from a folder to the cluster, and back.

Documents go with server-side apply under a field manager of their own, so that the API server tells of a field that
somebody else has set. What is said goes to standard output line by line, what failed to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway import clock

if TYPE_CHECKING:
    from gateway.kube.client import KubeClient
    from gateway.registry.parse import ObjectId
    from gateway.registry.transfer import Difference, Document

FIELD_MANAGER: Final = "llm-gateway-import"

_Namespace = Annotated[
    str | None, typer.Option(help="Namespace of the resources. Default: LLM_GATEWAY_REGISTRY_NAMESPACE.")
]
_Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="kubeconfig file. Default: LLM_GATEWAY_KUBERNETES_CONFIG, the pod's account, or kubectl's own."),
]
_Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig file. Default: the current one.")]


def import_registry(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the registry.")],
    namespace: _Namespace = None,
    kubeconfig: _Kubeconfig = None,
    context: _Context = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Have the API server check everything, and change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also take over fields that somebody else has set in the cluster.")
    ] = False,
) -> None:
    """Apply the documents of a folder to the cluster; only what differs, and never a Secret."""
    from gateway.registry.transfer import differences, folder_documents

    _check(folder)
    client, where = _connect(namespace, kubeconfig, context)
    wanted = {each: _placed(document, where) for each, document in folder_documents(folder).items()}
    there = _resources(client, where)
    failed = changed = 0
    for each in differences(wanted, there):
        changed += 1
        failed += not _apply(client, where, each, dry_run=dry_run, force=force)
    others = [str(object_id) for object_id in there if object_id not in wanted]
    done = "would be written" if dry_run else "written"
    print(f"{changed - failed} {done}, {len(wanted) - changed} as they were, {failed} refused, in namespace {where}")
    if others:
        print(f"only in the cluster, and left alone: {', '.join(others[:20])}{' ...' if len(others) > 20 else ''}")
    if failed:
        raise typer.Exit(1)


def export_registry(
    namespace: _Namespace = None,
    kubeconfig: _Kubeconfig = None,
    context: _Context = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for one file per object. Default: print all of them.")
    ] = None,
) -> None:
    """Write the registry of the cluster as clean documents; never a Secret."""
    from gateway.registry.transfer import as_yaml, cluster_document

    client, where = _connect(namespace, kubeconfig, context)
    documents = {each: cluster_document(each, resource) for each, resource in _resources(client, where).items()}
    if out is None:
        print("".join(f"---\n{as_yaml(document)}" for document in documents.values()), end="")
        return
    written = sum(_write(out, object_id, document) for object_id, document in documents.items())
    print(f"{written} written, {len(documents) - written} as they were, in {out}")


def _check(folder: Path) -> None:
    """Ends with every problem of the folder's documents, as documents for the cluster."""
    from gateway.errors import RegistryInvalid
    from gateway.registry import AnySecret, load_folder

    result = load_folder(folder, AnySecret(cluster=True), None, clock.wall())
    if result.problems:
        raise RegistryInvalid(result.problems)


def _connect(namespace: str | None, kubeconfig: Path | None, context: str | None) -> tuple[KubeClient, str]:
    from gateway.app.kube import kube_client
    from gateway.settings import Settings

    settings = Settings.load(registry_namespace=namespace, kubernetes_config=kubeconfig, kubernetes_context=context)
    if settings.registry_namespace is None:
        raise typer.BadParameter("give the namespace of the registry", param_hint="--namespace")
    return kube_client(settings, kubectl=True), settings.registry_namespace


def _placed(document: Document, namespace: str) -> Document:
    named = document["metadata"].get("namespace", namespace)
    if named != namespace:
        name = f"{document['kind']}/{document['metadata']['name']}"
        raise typer.BadParameter(f"{name} is of the namespace {named}", param_hint="--namespace")
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


def _resources(client: KubeClient, namespace: str) -> dict[ObjectId, Mapping[str, Any]]:
    """Every object of the registry in the cluster, in the order in which they refer to each other."""
    from gateway.registry.parse import KINDS, ObjectId

    found: dict[ObjectId, Mapping[str, Any]] = {}
    for kind in KINDS:
        for resource in _list(client, kind, namespace):
            found[ObjectId(kind, str(resource["metadata"]["name"]))] = resource
    return found


def _list(client: KubeClient, kind: Any, namespace: str) -> Iterator[Mapping[str, Any]]:
    from gateway.errors import KubernetesFailure
    from gateway.registry.resources import PLURALS, collection

    query = {"limit": "500"}
    while True:
        try:
            answer = client.get(collection(PLURALS[kind], namespace), query)
        except KubernetesFailure as error:
            print(f"The cluster cannot be read: {error.text}", file=sys.stderr)
            raise typer.Exit(1) from None
        yield from answer["items"]
        if not (following := answer["metadata"].get("continue")):
            return
        query = {"limit": "500", "continue": following}


def _apply(client: KubeClient, namespace: str, each: Difference, *, dry_run: bool, force: bool) -> bool:
    """Apply one document and say so; False where the API server refused it."""
    from gateway.errors import KubernetesFailure
    from gateway.kube.client import APPLY_PATCH
    from gateway.registry.resources import PLURALS, collection

    query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
    if dry_run:
        query["dryRun"] = "All"
    path = f"{collection(PLURALS[each.id.kind], namespace)}/{each.id.name}"
    try:
        client.request("PATCH", path, query, each.document, APPLY_PATCH)
    except KubernetesFailure as error:
        print(f"{each.id}: refused: {error.text}", file=sys.stderr)
        return False
    print(f"{each.id}: {'created' if each.is_new else 'changed ' + ', '.join(each.fields)}")
    return True


def _write(folder: Path, object_id: ObjectId, document: Document) -> bool:
    """Write one file where it does not hold just that already."""
    from gateway.registry.resources import PLURALS
    from gateway.registry.transfer import as_yaml

    path = folder / PLURALS[object_id.kind] / f"{object_id.name}.yaml"
    text = as_yaml(document)
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint="--out") from None
    return True
