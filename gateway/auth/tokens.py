"""Authentication by JWT: a token that a tenant's issuer signed opens the tenant that its claim names.

RFC 7515 (JWS), RFC 7519 (claims), RFC 8725 (best practice). Invariants:
- What a token says of itself decides nothing: its issuer must be one that the registry names, its key one that this
  issuer publishes, its algorithm one that this key is for. A token that brings a key, or where to find one, is refused.
- Nothing of a token is believed before its signature is verified, but which key that takes.
- Every refusal is the same 401; the reason goes to the operator only and quotes nothing of the token.
- A token that could open two tenants opens none.

A signature that was verified once is remembered, nothing else: times and claims are checked on every request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from typing import Any

import msgspec

from gateway.auth.jwks import IssuerKeys, VerificationKey
from gateway.auth.keys import check_access
from gateway.errors import AuthenticationFailed
from gateway.model import Credentials, Frozen, Issuer, Principal, Snapshot

_FORM = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_BRINGS_A_KEY = frozenset({"jku", "jwk", "x5u", "x5c"})
_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})


class TokenOptions(Frozen, frozen=True):
    """Bounds of tokens: bytes of one, seconds that clocks may differ, and how many verified ones are remembered."""

    max_token_bytes: int = 8192
    leeway_s: float = 30.0
    max_verified: int = 4096


class _Header(Frozen, frozen=True):
    algorithm: str
    kid: str | None


class TokenAuthenticator:
    """Finds who a token's caller is. One per process; not for several event loops."""

    def __init__(self, keys: IssuerKeys, options: TokenOptions) -> None:
        self._keys = keys
        self._options = options
        self._verified: OrderedDict[bytes, VerificationKey] = OrderedDict()  # by the token's digest

    @staticmethod
    def token_in(snapshot: Snapshot, credentials: Credentials) -> bytes | None:
        """The token that the caller presented; None for anything that is to be read as an API key."""
        if not snapshot.issuers or not credentials.presented:
            return None
        token = credentials.presented[0]
        if token.count(b".") != 2 or hashlib.sha256(token).digest() in snapshot.keys:
            return None
        return token

    async def authenticate(self, snapshot: Snapshot, credentials: Credentials, token: bytes, now: float) -> Principal:
        """The caller that ``token`` speaks for at ``now`` (Unix seconds). Raises AuthenticationFailed.

        Waits only where the issuer's keys have to be fetched first.
        """
        if any(other != token for other in credentials.presented):
            raise AuthenticationFailed("credentials that differ")
        if len(token) > self._options.max_token_bytes:
            raise AuthenticationFailed("token: too large")
        if _FORM.fullmatch(token) is None:
            raise AuthenticationFailed("token: malformed")
        head, payload, signature = token.split(b".")
        header, claims = _header(head), _json_object(payload)
        name = claims.get("iss")
        issuer = snapshot.issuers.get(name) if isinstance(name, str) else None
        if issuer is None or not isinstance(name, str):
            raise AuthenticationFailed("token: unknown issuer")
        keys = await self._keys.of(name, header.kid, snapshot.issuers)
        key = keys.find(header.kid, header.algorithm)
        if key is None:
            raise AuthenticationFailed(f"token: {name} has no key for it")
        if not self._is_signed(token, signature, key):
            raise AuthenticationFailed("token: wrong signature")
        _check_times(claims, now, self._options.leeway_s)
        principal = _principal(issuer, claims)
        check_access(principal, credentials.client_ip)
        return principal

    def _is_signed(self, token: bytes, signature: bytes, key: VerificationKey) -> bool:
        """Whether ``key`` signed the token: computed once, then known for as long as the issuer keeps the key."""
        digest = hashlib.sha256(token).digest()
        if self._verified.get(digest) is key:
            return True
        if not key.verify(token[: -len(signature) - 1], _decoded(signature)):
            return False
        self._verified[digest] = key
        if len(self._verified) > self._options.max_verified:
            self._verified.popitem(last=False)
        return True


def _header(part: bytes) -> _Header:
    header = _json_object(part)
    if not _BRINGS_A_KEY.isdisjoint(header):
        raise AuthenticationFailed("token: brings its own key")
    if "crit" in header:  # RFC 7515, 4.1.11: extensions that must be understood, and none is
        raise AuthenticationFailed("token: critical extensions")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise AuthenticationFailed("token: algorithm not allowed")
    if kid is not None and not isinstance(kid, str):
        raise AuthenticationFailed("token: malformed key id")
    return _Header(algorithm=algorithm, kid=kid)


def _check_times(claims: dict[str, Any], now: float, leeway_s: float) -> None:
    """RFC 7519, 4.1.4 and 4.1.5. An end is required; the leeway is taken off ``now`` since claims can be any number."""
    if now - leeway_s >= _number(claims.get("exp")):
        raise AuthenticationFailed("token: expired")
    if now + leeway_s < _number(claims.get("nbf", 0)):
        raise AuthenticationFailed("token: not valid yet")


def _principal(issuer: Issuer, claims: dict[str, Any]) -> Principal:
    """The one principal that audience and claim lead to."""
    audiences = _texts(claims.get("aud"))
    found: dict[str, Principal] = {}
    for audience, claim in issuer.grants:
        if audience not in audiences:
            continue
        for value in _texts(claims.get(claim)):
            principal = issuer.principals.get((audience, claim, value))
            if principal is not None:
                found[principal.tenant.name] = principal
    if not found:
        raise AuthenticationFailed("token: no tenant for its audience and claims")
    if len(found) > 1:
        raise AuthenticationFailed(f"token: fits several tenants: {', '.join(sorted(found))}")
    return next(iter(found.values()))


def _texts(claim: Any) -> tuple[str, ...]:
    """A claim that is a text or a list of texts (RFC 7519, 4.1.3, and as groups and roles are given)."""
    items = claim if isinstance(claim, list) else (claim,)
    return tuple(item for item in items if isinstance(item, str))


def _number(value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise AuthenticationFailed("token: its times are missing or no numbers")


def _json_object(part: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_decoded(part), type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise AuthenticationFailed("token: malformed") from None


def _decoded(part: bytes) -> bytes:
    """Base64url without padding (RFC 7515, appendix C). Raises AuthenticationFailed."""
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise AuthenticationFailed("token: malformed") from None
