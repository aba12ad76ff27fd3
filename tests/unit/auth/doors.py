"""A door for tokens: an authenticator with keys of a test's own, asked the way that the pipeline asks it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.auth import IssuerKeys, KeyOptions, TokenAuthenticator, TokenOptions, authenticate, read_credentials
from gateway.errors import AuthenticationFailed
from gateway.model import ApiKey, Issuer, Principal, Snapshot, Tenant
from tests.support.issuer import AUDIENCE, SigningKey, claims

ISSUER = "https://idp.example"
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
KEY = SigningKey("ES256")
RSA = SigningKey("RS256", "rsa-1")


def snapshot(*tenants: Tenant, grants: dict[tuple[str, str, str], int] | None = None, **fields: Any) -> Snapshot:
    """A registry whose issuer's tokens lead to tenants by index; by default those of claim ``tenant``."""
    tenants = tenants or (Tenant(name="acme", scenarios={}), Tenant(name="beta", scenarios={}))
    given = grants or {(AUDIENCE, "tenant", tenant.name): index for index, tenant in enumerate(tenants)}
    token_key = ApiKey(name="oidc")
    principals = {grant: Principal(tenant=tenants[index], key=token_key) for grant, index in given.items()}
    pairs = tuple(dict.fromkeys((audience, claim) for audience, claim, _ in principals))
    empty: dict[str, Any] = {"tenants": {}, "scenarios": {}, "backends": {}, "object_counts": {}, "keys": {}}
    issuers = {ISSUER: Issuer(grants=pairs, principals=principals)}
    return Snapshot(generation=1, hash="", loaded_at=0.0, **(empty | {"issuers": issuers} | fields))


class Door:
    """An authenticator that knows these keys."""

    def __init__(self, *keys: SigningKey | dict[str, Any], **options: Any) -> None:
        self.published = [key.jwk() if isinstance(key, SigningKey) else key for key in keys]
        self.fetches = 0
        self.now_s = 1000.0
        self.keys = IssuerKeys(self._fetch, KeyOptions(), lambda: self.now_s)
        self.tokens = TokenAuthenticator(self.keys, TokenOptions(**options))

    async def _fetch(self, issuer: str) -> bytes:
        assert issuer == ISSUER
        self.fetches += 1
        return json.dumps({"keys": self.published}).encode()

    def open(self, *tokens: str, registry: Snapshot | None = None, now: float | None = None) -> Principal:
        """Who comes in, by the way that the pipeline goes."""
        registry = registry or snapshot()
        credentials = read_credentials(tuple(each.encode() for each in tokens), "10.1.2.3")
        at = claims(ISSUER)["nbf"] + 60.0 if now is None else now
        token = self.tokens.token_in(registry, credentials)
        if token is None:
            return authenticate(registry, credentials, at)
        return asyncio.run(self.tokens.authenticate(registry, credentials, token, at))

    def refuses(self, *tokens: str, **options: Any) -> str:
        """The operator's reason for the refusal, which must be the one that every caller gets."""
        with pytest.raises(AuthenticationFailed) as caught:
            self.open(*tokens, **options)
        assert caught.value.message == "Incorrect API key provided."
        assert caught.value.detail is not None
        return caught.value.detail
