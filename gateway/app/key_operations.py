"""What the admin API does with keys, whichever way they are kept, and what the two ways have in common.

In folder mode keys are records in Redis (``admin_keys``), in the cluster ApiKey resources (``cluster_keys``). Either
way a key is made on this side, by the system's generator, leaves it in one answer, and only its digest is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from gateway.app.admin_schemas import KeyState, KeyView, MadeKey, NewKey, RevocationView, Rotation
from gateway.clock import wall
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound
from gateway.model import Snapshot
from gateway.registry.accounts import ApiKeyDocument, ApiKeySpec
from gateway.registry.check import validate
from gateway.registry.compile import compile_key
from gateway.registry.documents import FieldErrors
from gateway.registry.overlay import scope_of
from gateway.registry.records import rfc3339
from gateway.registry.values import unix_s

DIGESTS_MAX: Final = 16
"""Digests that one key may list, as in its document."""

CHANGED: Final = "The key {name} has just been changed by somebody else."

Audit = Callable[[str, Mapping[str, str]], None]
"""Told of each change: what was done, and to what."""


class KeyOperations(Protocol):
    """The operations on keys; changes raise InvalidRequest, NotFound, Conflict and StoreUnavailable."""

    def all(self, tenant: str | None = None) -> list[KeyView]:
        """Every key, by name; may run in another thread."""

    def get(self, name: str) -> KeyView:
        """One key. Raises NotFound."""

    def revocations(self) -> list[RevocationView]:
        """Every revocation, the latest first."""

    def export(self) -> str:
        """The keys of the API that are not revoked as YAML documents, without digests that have expired."""

    async def create(self, new: NewKey) -> MadeKey:
        """Make a key."""

    async def rotate(self, name: str, rotation: Rotation) -> MadeKey:
        """Make a new key that works beside the one in use, for the grace."""

    async def revoke(self, name: str) -> KeyView:
        """Refuse a key for good; doing it again changes nothing."""

    async def revoke_digest(self, sha256: str) -> RevocationView:
        """Refuse a digest for good; doing it again changes nothing."""


class AuditLog:
    """Writes one line per change to the process log, whatever the level of the rest."""

    def __init__(self) -> None:
        self._log = logging.getLogger("gateway.audit")
        self._log.setLevel(logging.INFO)

    def __call__(self, action: str, facts: Mapping[str, str]) -> None:
        """Write the line."""
        self._log.info("admin %s %s", action, " ".join(f"{name}={value}" for name, value in facts.items() if value))


def check_key(document: dict[str, Any], snapshot: Snapshot) -> None:
    """Raise InvalidRequest for a key's document that would be refused, or that names what is not there."""
    checked, errors = validate(ApiKeyDocument, document)
    if checked is not None:
        try:
            compile_key(checked, scope_of(snapshot))
        except FieldErrors as error:
            errors = list(error.errors)
    for field, reason in errors:
        own = field.removeprefix("metadata.").removeprefix("spec.")  # as the API's bodies have it
        raise InvalidRequest(f"`{own}` {reason}.", param=own)


def rotated(document: Mapping[str, Any], fresh: Mapping[str, str], now: float, grace_s: float) -> dict[str, Any]:
    """The document with a further digest; those in use end after the grace, those that have ended are dropped."""
    limit = rfc3339(now + grace_s)
    in_use = without_expired(document, now)["spec"]["digests"]
    if len(in_use) >= DIGESTS_MAX:
        raise Conflict(f"The key has {DIGESTS_MAX} digests that still work: wait for the end of a grace.")
    ending = [each | {"expiresAt": min(each.get("expiresAt", limit), limit, key=unix_s)} for each in in_use]
    return {**document, "spec": {**document["spec"], "digests": [*(ending if grace_s > 0 else []), dict(fresh)]}}


def without_expired(document: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The document without the digests that have ended."""
    spec = document["spec"]
    digests = [each for each in spec["digests"] if "expiresAt" not in each or unix_s(each["expiresAt"]) > now]
    return {**document, "spec": {**spec, "digests": digests}}


def in_future(moment_s: float | None) -> float | None:
    """The moment. Raises InvalidRequest for one that has passed."""
    if moment_s is not None and moment_s <= wall():
        raise InvalidRequest("`expiresAt` must be in the future.", param="expiresAt")
    return moment_s


def state_of(spec: ApiKeySpec, snapshot: Snapshot, *, revoked: Callable[[str], bool]) -> KeyState:
    """What becomes of who presents the key; ``revoked`` tells of a digest whether it opens nothing any more."""
    tenant = snapshot.tenants.get(spec.tenant)
    left = [each for each in spec.digests if not revoked(each.sha256)]
    if not left:
        return "revoked"
    if tenant is None:
        return "unresolved"
    if spec.disabled or tenant.disabled:
        return "disabled"
    return "live" if any(each.expires_at is None or each.expires_at > wall() for each in left) else "expired"


def no_key(name: str) -> GatewayError:
    """What is said of a key that is not there."""
    return NotFound(f"There is no key {name[:253]}.", code="key_not_found")
