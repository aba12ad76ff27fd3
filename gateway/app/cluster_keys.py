"""Keys over the admin API as ApiKey resources of the registry's namespace.

Invariants:
- Only resources that this API made, known by a label, are changed here; any other is a Conflict.
- A change is written on the version that it was decided on, and whoever changed it meanwhile is told of.
- A revocation is a change of the resource: every replica hears of it by its watch, within milliseconds while the API
  server is there. Without the API server nothing can be made or revoked, and the answer says so.
- Nothing is written unless ``LLM_GATEWAY_REGISTRY_WRITE_KEYS`` allows it, and the service account has the rights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from gateway.app.admin_schemas import DigestView, KeyView, MadeKey, NewKey, RevocationView, Rotation, moment
from gateway.app.cluster import ClusterWatch
from gateway.app.key_operations import (
    CHANGED,
    Audit,
    check_key,
    in_future,
    no_key,
    rotated,
    state_of,
    without_expired,
)
from gateway.clock import wall
from gateway.errors import Conflict, KubernetesFailure, StoreUnavailable
from gateway.registry import generate_key, key_digest
from gateway.registry.accounts import ApiKeyDocument
from gateway.registry.records import digest_entry, key_document, rfc3339
from gateway.registry.resources import GROUP, PLURALS, Parsed, Resource, collection, document_of, parse
from gateway.registry.values import unix_s

MADE_BY: Final = f"{GROUP}/made-by"
ADMIN_API: Final = "admin-api"
REVOKED_AT: Final = f"{GROUP}/revoked-at"
"""Annotation of a key that was revoked; it is disabled, too."""

_MERGE_PATCH: Final = "application/merge-patch+json"
_CONFLICT, _NOT_FOUND, _FORBIDDEN = 409, 404, 403


class ClusterKeys:
    """The operations on keys in the cluster. ``may_write`` is the operator's word."""

    def __init__(self, registry: ClusterWatch, audit: Audit, *, may_write: bool, keys_max: int) -> None:
        self._registry = registry
        self._audit = audit
        self._may_write = may_write
        self._keys_max = keys_max

    # -- showing -------------------------------------------------------------------------------------------------

    def all(self, tenant: str | None = None) -> list[KeyView]:
        """Every key, by name; may run in another thread."""
        views = [self._view(each) for _, each in self._keys()]
        return sorted((view for view in views if tenant in (None, view.tenant)), key=lambda view: view.name)

    def get(self, name: str) -> KeyView:
        """One key. Raises NotFound."""
        found = dict(self._keys()).get(name)
        if found is None:
            raise no_key(name)
        return self._view(found)

    def revocations(self) -> list[RevocationView]:
        """Every digest of a key that the API has revoked, the latest first."""
        found = [
            RevocationView(
                sha256=digest["sha256"],
                revoked_at=revoked_at,
                key=name,
                tenant=_tenant_of(each.resource),
            )
            for name, each in self._keys()
            if (revoked_at := _revoked_at(each.resource)) is not None
            for digest in _digests(each.resource)
        ]
        return sorted(found, key=lambda each: (-unix_s(each.revoked_at), each.sha256))

    def export(self) -> str:
        """The keys of the API that are not revoked as YAML documents, without digests that have expired."""
        documents = [
            without_expired(document_of("ApiKey", each.resource), wall())
            for _, each in sorted(self._keys())
            if _is_ours(each.resource) and _revoked_at(each.resource) is None and each.candidate.document is not None
        ]
        left = [document for document in documents if document["spec"]["digests"]]
        return yaml.safe_dump_all(left, sort_keys=False, explicit_start=True) if left else ""

    # -- changing ------------------------------------------------------------------------------------------------

    async def create(self, new: NewKey) -> MadeKey:
        """Make a key. Raises InvalidRequest, Conflict, StoreUnavailable."""
        self._writable()
        key = generate_key()
        digest = key_digest(key)
        name = new.name or f"{new.tenant[:50]}-{digest.hex()[:8]}"
        entry = digest_entry(digest, in_future(new.expires_at))
        document = key_document(name, new.tenant, [entry], new.scenarios, new.limits)
        check_key(document, self._registry.snapshot)
        if sum(_is_ours(each.resource) for _, each in self._keys()) >= self._keys_max:
            raise Conflict(f"There are {self._keys_max} keys: no more are made (LLM_GATEWAY_KEYS_MAX).")
        document["metadata"]["labels"] = {MADE_BY: ADMIN_API}
        made = await self._ask("POST", "", document, f"There is a key {name} already.")
        self._audit("key.create", {"tenant": new.tenant, "key": name, "sha256": digest.hex()})
        return self._made(made, key, digest)

    async def rotate(self, name: str, rotation: Rotation) -> MadeKey:
        """Make a new key that works beside the one in use, for the grace. Raises NotFound, Conflict, ..."""
        self._writable()
        resource = await self._mine(name)
        if _revoked_at(resource) is not None:
            raise Conflict(f"The key {name} is revoked.")
        key = generate_key()
        digest, now = key_digest(key), wall()
        entry = digest_entry(digest, in_future(rotation.expires_at))
        document = rotated(document_of("ApiKey", resource), entry, now, rotation.grace)
        check_key(document, self._registry.snapshot)
        changed = {**resource, "spec": document["spec"]}
        made = await self._ask("PUT", name, changed, CHANGED.format(name=name))
        facts = {"tenant": document["spec"]["tenant"], "key": name, "sha256": digest.hex()}
        self._audit("key.rotate", facts | {"grace_s": f"{rotation.grace:g}"})
        return self._made(made, key, digest)

    async def revoke(self, name: str) -> KeyView:
        """Refuse a key for good. Raises NotFound, Conflict, StoreUnavailable; doing it again changes nothing."""
        self._writable()
        resource = await self._mine(name)
        if _revoked_at(resource) is None:
            metadata = {"annotations": {REVOKED_AT: rfc3339(wall())}}
            change = {"metadata": metadata, "spec": {"disabled": True}}  # whoever changed what else meanwhile
            resource = await self._ask("PATCH", name, change, CHANGED.format(name=name))
            digests = ",".join(each["sha256"] for each in _digests(resource))
            self._audit("key.revoke", {"tenant": _tenant_of(resource), "key": name, "sha256": digests})
        return self._view(parse("ApiKey", resource))

    async def revoke_digest(self, sha256: str) -> RevocationView:
        """Refuse a digest for good: the whole key where it is its only one, else it leaves the key's list."""
        self._writable()
        name = next((name for name, each in self._keys() if _lists(each.resource, sha256)), None)
        if name is None:
            raise no_key(f"with the digest {sha256}")
        resource = await self._mine(name)
        now = rfc3339(wall())
        revoked_at = _revoked_at(resource)
        left = [each for each in _digests(resource) if each["sha256"].lower() != sha256]
        if revoked_at is None and not left:
            await self.revoke(name)
        elif revoked_at is None and _lists(resource, sha256):
            changed = {**resource, "spec": {**resource["spec"], "digests": left}}
            await self._ask("PUT", name, changed, CHANGED.format(name=name))
            self._audit("digest.revoke", {"tenant": _tenant_of(resource), "key": name, "sha256": sha256})
        return RevocationView(sha256=sha256, revoked_at=revoked_at or now, key=name, tenant=_tenant_of(resource))

    # -- parts ---------------------------------------------------------------------------------------------------

    def _keys(self) -> Iterator[tuple[str, Parsed]]:
        for object_id, parsed in self._registry.parsed.items():
            if object_id.kind == "ApiKey":
                yield object_id.name, parsed

    def _writable(self) -> None:
        if not self._may_write:
            raise Conflict(
                "Keys are ApiKey resources here, and this gateway may not write them"
                " (LLM_GATEWAY_REGISTRY_WRITE_KEYS): make and change them in the cluster.",
                code="keys_not_writable",
            )

    async def _mine(self, name: str) -> Resource:
        """The resource of a key that the API made, as the cluster has it now. Raises NotFound, Conflict, ..."""
        resource: Resource = await self._ask("GET", name, None, "")
        if not _is_ours(resource):
            raise Conflict(f"The key {name} was made in the cluster, not by this API: change it there.")
        return resource

    async def _ask(self, method: str, name: str, body: object, conflict: str) -> Any:
        """Make one request about ApiKeys. Raises NotFound, Conflict with the text, StoreUnavailable."""
        client = self._registry.client
        if client is None:
            raise StoreUnavailable("The gateway is starting.", retry_after_s=1.0)
        path = collection(PLURALS["ApiKey"], self._registry.namespace) + (f"/{name}" if name else "")
        content_type = _MERGE_PATCH if method == "PATCH" else "application/json"
        query = None if method == "GET" else {"fieldManager": "llm-gateway-admin"}
        try:
            return await asyncio.to_thread(client.request, method, path, query, body, content_type)
        except KubernetesFailure as error:
            raise _refusal(error, method, name, conflict) from None

    def _made(self, made: Resource, key: str, digest: bytes) -> MadeKey:
        details = self._view(parse("ApiKey", made))
        ends = next((each.expires_at for each in details.digests if each.sha256 == digest.hex()), None)
        return MadeKey(key=key, sha256=digest.hex(), expires_at=ends, details=details)

    def _view(self, parsed: Parsed) -> KeyView:
        resource, document = parsed.resource, parsed.candidate.document
        revoked_at = _revoked_at(resource)
        common: dict[str, Any] = {
            "name": str(resource["metadata"]["name"]),
            "source": "api" if _is_ours(resource) else "cluster",
            "created_at": resource["metadata"].get("creationTimestamp"),
            "revoked_at": revoked_at,
        }
        if not isinstance(document, ApiKeyDocument):
            return KeyView(tenant=_tenant_of(resource), state="unresolved", digests=[], **common)
        own = document.spec
        return KeyView(
            tenant=own.tenant,
            state=state_of(own, self._registry.snapshot, revoked=lambda _: revoked_at is not None),
            digests=[
                DigestView(sha256=each.sha256, expires_at=moment(each.expires_at), revoked=revoked_at is not None)
                for each in own.digests
            ],
            scenarios=own.scenarios,
            limits=[limit.effective_name for limit in own.limits],
            **common,
        )


def _refusal(error: KubernetesFailure, method: str, name: str, conflict: str) -> Exception:
    if error.status == _NOT_FOUND and name:
        return no_key(name)
    if error.status == _CONFLICT:
        return Conflict(conflict)
    if error.status == _FORBIDDEN:
        return Conflict(
            "The gateway's service account may not do this to ApiKeys: it needs the rights that"
            " `registry.writeKeys` of the chart gives.",
            code="keys_not_writable",
            detail=error.text,
        )
    advice = "The change may have been made: look before you repeat it." if method != "GET" else "Nothing was changed."
    if error.status is not None:
        advice = "Nothing was changed."
    text = f"The Kubernetes API did not answer as it should. {advice}"
    return StoreUnavailable(text, detail=error.text, retry_after_s=1.0)


def _is_ours(resource: Resource) -> bool:
    labels = resource["metadata"].get("labels")
    return isinstance(labels, Mapping) and labels.get(MADE_BY) == ADMIN_API


def _revoked_at(resource: Resource) -> str | None:
    """When a key was revoked; None for one that is in use, again too: whoever may write the resource decides."""
    annotations = resource["metadata"].get("annotations")
    spec = resource.get("spec")
    if not isinstance(annotations, Mapping) or not isinstance(spec, Mapping) or spec.get("disabled") is not True:
        return None
    revoked_at = annotations.get(REVOKED_AT)
    try:
        unix_s(revoked_at)
    except ValueError:
        return None
    return str(revoked_at)


def _digests(resource: Resource) -> list[Mapping[str, str]]:
    spec = resource.get("spec")
    listed = spec.get("digests") if isinstance(spec, Mapping) else None
    found = listed if isinstance(listed, list) else []
    return [each for each in found if isinstance(each, Mapping) and isinstance(each.get("sha256"), str)]


def _lists(resource: Resource, sha256: str) -> bool:
    return any(each["sha256"].lower() == sha256 for each in _digests(resource))


def _tenant_of(resource: Resource) -> str:
    spec = resource.get("spec")
    return str(spec.get("tenant", "")) if isinstance(spec, Mapping) else ""
