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
    if entry.expires_at is not None and now >= entry.expires_at:
        raise AuthenticationFailed(f"expired key {principal.key.name}")
    check_access(principal, credentials.client_ip)
    return principal


def check_access(principal: Principal, client_ip: str) -> None:
    """Raises AuthenticationFailed for a known caller that may not come in: disabled, or from an address not allowed."""
    if principal.key.disabled or principal.tenant.disabled:
        raise AuthenticationFailed(f"disabled: tenant {principal.tenant.name}, key {principal.key.name}")
    allowed = principal.tenant.ip_allow_list
    if allowed is not None and not is_within(client_ip, allowed):
        raise AuthenticationFailed(f"address not allowed for tenant {principal.tenant.name}")
