"""A Google service account and the endpoint that gives tokens for it: a real server that checks what it is asked with.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jose import jwt

from tests.support.issuer import rsa_private_key
from tests.support.scripts import Received, Script, json_reply

EMAIL = "gateway@acme-prod-42.iam.gserviceaccount.com"
KEY_ID = "key-1"


def account_key(token_uri: str | None, **changes: Any) -> bytes:
    """The JSON key of the account; a field that is None is left out."""
    private = rsa_private_key(KEY_ID).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = {
        "type": "service_account",
        "project_id": "acme-prod-42",
        "private_key_id": KEY_ID,
        "private_key": private.decode(),
        "client_email": EMAIL,
        "client_id": "1234567890",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }
    return json.dumps({name: value for name, value in (key | changes).items() if value is not None}, indent=2).encode()


class TokenEndpoint:
    """A behaviour that gives ``ya29.1``, ``ya29.2`` and so on, each for an hour.

    ``replies`` are its answers to some accounts instead, by their email; ``given`` counts tokens by email.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Script] = {}
        self.given: Counter[str] = Counter()
        self.problems: list[str] = []

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        try:
            email = check(request)
        except Exception as error:  # noqa: BLE001  # whatever it is, the test shall see it
            self.problems.append(repr(error))
            return json_reply({"error": "invalid_grant"}, 400)
        if email in self.replies:
            return self.replies[email]
        self.given[email] += 1
        token = f"ya29.{email.partition('@')[0]}-{self.given[email]}"
        return json_reply({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})


def check(request: Received) -> str:
    """The email of the account that asks. Raises where a request is not one that Google would give a token for."""
    assert (request.method, request.target) == ("POST", "/token"), request
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    form = parse_qs(request.body.decode(), strict_parsing=True)
    assert form.keys() == {"grant_type", "assertion"}
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    [assertion] = form["assertion"]
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": KEY_ID}
    public = rsa_private_key(KEY_ID).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    host = request.header("host") or ""
    scheme = "http" if host.startswith("127.") else "https"
    claims = jwt.decode(assertion, public.decode(), "RS256", audience=f"{scheme}://{host}/token")
    assert claims.keys() == {"iss", "scope", "aud", "iat", "exp"}
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 60
    return str(claims["iss"])
