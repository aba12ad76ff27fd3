"""Whom the tokens of each issuer speak for, from the tenants that serve. Pure.

Invariant: one combination of issuer, audience, claim and value leads to one tenant; of several the first given has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import NamedTuple

from gateway.model import ApiKey, Issuer, Principal, Tenant
from gateway.registry.parse import Candidate

TOKEN_KEY = ApiKey(name="oidc")
"""Stands for the API key of a caller that presented a token: it narrows nothing."""


class Claim(NamedTuple):
    """A tenant, and the candidate that it was compiled from."""

    tenant: Tenant
    owner: Candidate


def index_issuers(claims: Iterable[Claim]) -> tuple[dict[str, Issuer], list[tuple[Candidate, Candidate]]]:
    """Return the issuers by name, and who wanted what already led to whose tenant."""
    owners: dict[tuple[str, str, str, str], Candidate] = {}
    principals: dict[str, dict[tuple[str, str, str], Principal]] = {}
    clashes = []
    for tenant, owner in claims:
        oidc = tenant.oidc
        if oidc is None:
            continue
        first = owners.setdefault((oidc.issuer, oidc.audience, oidc.claim, oidc.value), owner)
        if first is not owner:
            clashes.append((owner, first))
            continue
        found = principals.setdefault(oidc.issuer, {})
        found[oidc.audience, oidc.claim, oidc.value] = Principal(tenant=tenant, key=TOKEN_KEY)
    return {name: _issuer(found) for name, found in principals.items()}, clashes


def _issuer(principals: dict[tuple[str, str, str], Principal]) -> Issuer:
    grants = dict.fromkeys((audience, claim) for audience, claim, _ in principals)
    return Issuer(grants=tuple(grants), principals=MappingProxyType(principals))
