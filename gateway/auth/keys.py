"""Authentication by API key: one SHA-256 and one dictionary look-up, whatever was presented.

Invariants:
- A key is accepted by the digest of the whole string alone; nothing compares keys byte by byte.
- Every refusal is the same 401; the reason goes to the operator only.
- The cost is bounded: a credential of the wrong form is refused before anything is computed from it.
"""

from __future__ import annotations

import hashlib
import re

from gateway.auth.address import is_within
from gateway.errors import AuthenticationFailed
from gateway.model import Credentials, Principal, Snapshot

_KEY = re.compile(rb"[A-Za-z0-9._-]{16,256}")


def read_credentials(presented: tuple[bytes, ...], client_ip: str) -> Credentials:
    """What can be said of ``presented`` without knowing any key; the same for every request that presents the same."""
    if not presented:
        return Credentials(presented=presented, client_ip=client_ip)
    key = presented[0]
    if len(presented) > 1 and any(other != key for other in presented):
        return Credentials(presented=presented, client_ip=client_ip, fault="credentials that differ")
    if _KEY.fullmatch(key) is None:
        return Credentials(presented=presented, client_ip=client_ip, fault="malformed key")
    digest = hashlib.sha256(key).digest()
    return Credentials(presented=presented, client_ip=client_ip, digest=digest, fault="")


def authenticate(snapshot: Snapshot, credentials: Credentials, now: float) -> Principal:
    """The caller that ``credentials`` belong to at ``now`` (Unix seconds). Raises AuthenticationFailed."""
    if credentials.fault:
        raise AuthenticationFailed(credentials.fault)
    entry = snapshot.keys.get(credentials.digest)
    if entry is None:
        raise AuthenticationFailed("unknown key")
    principal = entry.principal
    key, tenant = principal.key, principal.tenant
    if entry.expires_at is not None and now >= entry.expires_at:
        raise AuthenticationFailed(f"expired key {key.name}")
    if key.disabled or tenant.disabled:
        raise AuthenticationFailed(f"disabled: tenant {tenant.name}, key {key.name}")
    if tenant.ip_allow_list is not None and not is_within(credentials.client_ip, tenant.ip_allow_list):
        raise AuthenticationFailed(f"address not allowed for tenant {tenant.name}")
    return principal
