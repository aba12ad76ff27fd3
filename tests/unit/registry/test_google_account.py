"""The JSON keys of Google service accounts: good ones, and why others are not; never what they hold."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.registry.compile_auth import NOT_READ
from gateway.registry.google_account import google_account
from tests.support.google_tokens import EMAIL, KEY_ID, account_key
from tests.support.issuer import rsa_private_key
from tests.unit.registry.folders import Folder, backend

URI = "https://oauth2.googleapis.com/token"


def pem(key: Any) -> str:
    """A private key as a file has it."""
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@pytest.mark.parametrize("uri", [URI, "http://127.0.0.1:8000/token", "http://[::1]/token", "http://localhost/token"])
def test_a_key(uri: str) -> None:
    """Tokens come over https, or from this very machine."""
    account = google_account(account_key(uri))
    assert (account.email, account.key_id, account.token_uri) == (EMAIL, KEY_ID, uri)
    assert "PRIVATE" not in repr(account)
    assert google_account(account_key(None)).token_uri == URI


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"not-read ", b"[" * 20_000])
def test_what_is_no_key(content: bytes) -> None:
    """Whatever it is instead."""
    with pytest.raises(ValueError, match="no JSON key of a service account"):
        google_account(content)
    with pytest.raises(ValueError, match="more than 65536 bytes"):
        google_account(content.ljust(70_000))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("type", "authorized_user", "no JSON key"),
        ("client_email", "a b@c", "no JSON key"),
        ("client_email", None, "no JSON key"),
        ("private_key_id", "a\nb", "no JSON key"),
        ("token_uri", "http://oauth2.googleapis.com/token", "token_uri is no https URL"),
        ("token_uri", "http://127.0.0.1.example/token", "token_uri is no https URL"),
        ("token_uri", "https://u:p@oauth2.googleapis.com/token", "token_uri is no https URL"),
        ("token_uri", "https:///token", "token_uri is no https URL"),
        ("token_uri", "https://h:port/token", "token_uri is no https URL"),
        ("token_uri", "https://h/\n", "token_uri is no https URL"),
        ("private_key", "hush", "private_key is no RSA key"),
    ],
)
def test_a_key_with_something_wrong(field: str, value: Any, reason: str) -> None:
    """Named by what that is, without what it holds."""
    uri = value if field == "token_uri" else URI
    changes = {} if field == "token_uri" else {field: value}
    with pytest.raises(ValueError, match=reason) as caught:
        google_account(account_key(uri, **changes))
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_private_key_of_another_kind() -> None:
    """RS256 needs an RSA key of some length (RFC 7518, 3.3)."""
    for private in (ec.generate_private_key(ec.SECP256R1()), rsa_private_key("weak", 1024)):
        with pytest.raises(ValueError, match="private_key is no RSA key of at least 2048 bits"):
            google_account(account_key(URI, private_key=pem(private)))


def test_an_account_is_the_credential_of_its_backend(folder: Folder) -> None:
    """It is in no header, and what is wrong with its key is told by the field that names it."""
    auth = {"type": "googleServiceAccount", "secret": {"env": "LLM_GATEWAY_SECRET_SA"}}
    url = "https://x-aiplatform.googleapis.com/v1/projects/p/locations/x/publishers/google"
    folder.write("b.yaml", backend(provider="vertex", url=url, auth=auth))
    folder.secrets.variables["LLM_GATEWAY_SECRET_SA"] = account_key(URI)
    value = folder.good().backends["qwen"]
    assert value.credential == google_account(account_key(URI))
    assert value.headers == ()
    folder.secrets.variables["LLM_GATEWAY_SECRET_SA"] = b"hush"
    [problem] = folder.load().problems
    assert problem.field == "spec.auth.secret.env"
    assert "hush" not in str(problem)
    folder.secrets.variables["LLM_GATEWAY_SECRET_SA"] = NOT_READ
    folder.good()


def test_providers_that_take_no_tokens_of_google(folder: Folder) -> None:
    """Are told so."""
    auth = {"type": "googleServiceAccount", "secret": {"env": "LLM_GATEWAY_SECRET_SA"}}
    folder.write("b.yaml", backend(provider="azure", url="https://x.openai.azure.com", auth=auth))
    [problem] = folder.load().problems
    assert (problem.field, problem.reason) == ("spec.auth.type", "googleServiceAccount is not for provider azure")
