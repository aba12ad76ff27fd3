"""The paths of the admin API on the management port; AdminGate stands before them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.security import HTTPBearer

from gateway.app import admin_schemas as schemas
from gateway.app.admin_autoscaling import add_autoscaling
from gateway.app.admin_cache import AdminCache
from gateway.app.admin_gate import PREFIX
from gateway.app.admin_limits import AdminLimits, no_tenant
from gateway.app.admin_rollouts import RolloutList, rollout_list
from gateway.app.key_operations import AuditLog, KeyOperations
from gateway.app.source import RegistryWatch
from gateway.edge.schemas import ErrorBody
from gateway.model import Limit, Snapshot, Tenant

if TYPE_CHECKING:
    from gateway.app.admin import Administration

ROOT: Final = f"{PREFIX}v1"
_YAML: Final = "application/yaml"  # RFC 9512


def admin_router(admin: Administration) -> APIRouter:
    """The paths of the admin API, described."""
    bearer = HTTPBearer(scheme_name="admin", auto_error=False, description="The token of the admin API.")
    router = APIRouter(prefix=ROOT, dependencies=[Depends(bearer)], responses=_ERRORS)
    audit = AuditLog()
    keys = admin.key_operations(audit)
    limits = AdminLimits(admin.registry, admin.lane, audit, rows_max=admin.usage_rows_max)
    _add_tenants(router, admin.registry)
    add_autoscaling(router, admin.registry, admin.fleet)
    _add_limits(router, limits)
    _add_keys(router, keys)
    _add_changes(router, keys)
    _add_revocations(router, keys)
    _add_rollouts(router, admin)
    _add_cache(router, AdminCache(admin.registry, admin.cache_lane, audit))
    return router


def _error(text: str) -> dict[str, Any]:
    return {"model": ErrorBody, "description": text}


_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: _error("The request is wrong; `param` names the field."),
    401: _error("No token, or a wrong one."),
    403: _error("The read-only token, for a change."),
    404: _error("No such object."),
    409: _error("The object is another one's, or is not as the change needs it."),
    503: _error("Redis, or the Kubernetes API, is not there; see `retry-after`."),
    "default": _error("Any other refusal."),  # so that no 422 is described, which is never answered
}
_Day = datetime.date | None


def _add_tenants(router: APIRouter, registry: RegistryWatch) -> None:
    @router.get("/tenants", tags=["tenants"], summary="Tenants")
    def tenants() -> schemas.TenantList:  # no coroutine: in a thread, as there may be many
        """Every tenant that is served."""
        snapshot = registry.snapshot
        keys = _keys_by_tenant(snapshot)
        found = [snapshot.tenants[name] for name in sorted(snapshot.tenants)]
        return schemas.TenantList(tenants=[_tenant(each, keys.get(each.name, set())) for each in found])

    @router.get("/tenants/{tenant}", tags=["tenants"], summary="One tenant")
    async def tenant(tenant: str) -> schemas.TenantView:
        """One tenant with its limits and keys."""
        snapshot = registry.snapshot
        found = snapshot.tenants.get(tenant)
        if found is None:
            raise no_tenant(tenant)
        return _tenant(found, _keys_by_tenant(snapshot).get(tenant, set()))


def _add_limits(router: APIRouter, limits: AdminLimits) -> None:
    @router.get("/tenants/{tenant}/levels", tags=["limits"], summary="Levels of limits")
    async def levels(tenant: str) -> schemas.LevelList:
        """How much is left of every limit of a tenant and of its keys."""
        return schemas.LevelList(levels=await limits.levels(tenant))

    @router.post("/tenants/{tenant}/levels/{limit}/reset", tags=["limits"], summary="Reset a level")
    async def reset(tenant: str, limit: str) -> schemas.LevelView:
        """Forget what was used of one limit."""
        return await limits.reset(tenant, limit)

    @router.get("/tenants/{tenant}/usage", tags=["usage"], summary="Usage by day")
    async def usage(
        tenant: str,
        first: Annotated[_Day, Query(alias="from", description="First UTC day. Default: the last.")] = None,
        last: Annotated[_Day, Query(alias="to", description="Last UTC day. Default: today.")] = None,
    ) -> schemas.UsageList:
        """What a tenant used."""
        return schemas.UsageList(usage=await limits.usage(tenant, first, last))


def _add_keys(router: APIRouter, keys: KeyOperations) -> None:
    @router.get("/keys", tags=["keys"], summary="Keys")
    def all_keys(  # no coroutine: in a thread, as there may be many
        tenant: Annotated[str | None, Query(description="Those of one tenant only.")] = None,
    ) -> schemas.KeyList:
        """Every key, those of the files and those that were made here."""
        return schemas.KeyList(keys=keys.all(tenant))

    @router.get(
        "/keys.yaml",
        tags=["keys"],
        summary="Export keys",
        response_class=Response,
        responses={200: {"content": {_YAML: {}}, "description": "ApiKey documents."}},
    )
    def export() -> Response:
        """The keys that were made here as documents for the registry's files; they hold digests, no key."""
        return Response(keys.export(), media_type=_YAML)

    @router.get("/keys/{name}", tags=["keys"], summary="One key")
    async def key(name: str) -> schemas.KeyView:
        """One key."""
        return keys.get(name)


def _add_changes(router: APIRouter, keys: KeyOperations) -> None:
    @router.post("/keys", tags=["keys"], summary="Make a key", status_code=201)
    async def create(new: schemas.NewKey) -> schemas.MadeKey:
        """Make a key. The answer is the only place where it is shown."""
        return await keys.create(new)

    @router.post("/keys/{name}/rotate", tags=["keys"], summary="Rotate a key")
    async def rotate(name: str, rotation: schemas.Rotation) -> schemas.MadeKey:
        """Make a new key under the same name; the one in use works on for the grace."""
        return await keys.rotate(name, rotation)

    @router.post("/keys/{name}/revoke", tags=["keys"], summary="Revoke a key")
    async def revoke(name: str) -> schemas.KeyView:
        """Refuse a key for good, on every replica within two seconds and whatever the files say."""
        return await keys.revoke(name)


def _add_revocations(router: APIRouter, keys: KeyOperations) -> None:
    @router.get("/revocations", tags=["keys"], summary="Revocations")
    def revocations() -> schemas.RevocationList:
        """Every digest that was revoked."""
        return schemas.RevocationList(revocations=keys.revocations())

    @router.post("/revocations", tags=["keys"], summary="Revoke a digest")
    async def revoke_digest(new: schemas.NewRevocation) -> schemas.RevocationView:
        """Refuse a digest for good, that of a key in the files, too; the files stay as they are."""
        return await keys.revoke_digest(new.sha256.lower())


def _add_rollouts(router: APIRouter, admin: Administration) -> None:
    @router.get("/rollouts", tags=["rollouts"], summary="Canaries")
    async def rollouts() -> RolloutList:
        """Every canary: what its calls and those of the base showed, and whether it was withdrawn."""
        return rollout_list(admin.rollouts)


def _add_cache(router: APIRouter, cache: AdminCache) -> None:
    @router.post("/cache/purge", tags=["cache"], summary="Forget kept answers")
    async def purge(wanted: schemas.Purge) -> schemas.Purge:
        """Forget what is kept of a tenant, or of one of its scenarios, on every replica."""
        await cache.purge(wanted.tenant, wanted.scenario)
        return wanted


def _keys_by_tenant(snapshot: Snapshot) -> dict[str, set[str]]:
    """The names of the keys that open each tenant."""
    names: dict[str, set[str]] = {}
    for entry in snapshot.keys.values():
        names.setdefault(entry.principal.tenant.name, set()).add(entry.principal.key.name)
    return names


def _tenant(tenant: Tenant, keys: set[str]) -> schemas.TenantView:
    return schemas.TenantView(
        name=tenant.name,
        display_name=tenant.display_name,
        disabled=tenant.disabled,
        models=sorted(tenant.scenarios),
        limits=[_limit(limit) for limit in tenant.limits],
        keys=sorted(keys),
    )


def _limit(limit: Limit) -> schemas.LimitView:
    return schemas.LimitView(
        name=limit.name,
        unit=limit.unit,
        per=limit.per,
        amount=schemas.usd(limit.amount) if limit.unit == "cost" else limit.amount,
        burst=limit.burst,
        scenario=limit.scenario,
        mode=limit.mode,
        on_redis_loss=limit.on_redis_loss,
    )
