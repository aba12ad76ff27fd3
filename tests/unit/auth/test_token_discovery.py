"""Fetching keys, as far as it goes without a network: settings that are wrong, and the address of a key set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.auth import FetchOptions, KeySetFetcher
from gateway.auth.discovery import _json_object, _key_set_url
from gateway.auth.jwks import FetchFailed
from gateway.errors import SettingsInvalid


@pytest.mark.parametrize("content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_file_without_certificates(tmp_path: Path, content: bytes) -> None:
    """Said at the start, by the name of the setting, and not with the first token."""
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(SettingsInvalid, match="LLM_GATEWAY_OIDC_CA_FILE: expected a file of certificates"):
        KeySetFetcher(FetchOptions(ca_file=path))


@pytest.mark.parametrize(
    "url", ["https://idp.example/keys", "https://keys.example:8443/a/b?version=2", "https://[::1]:8443/keys"]
)
def test_addresses_of_key_sets(url: str) -> None:
    """Any https URL: large issuers publish their keys on another host."""
    assert _key_set_url({"jwks_uri": url}) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        ["https://idp.example/keys"],
        "",
        "keys",
        "/keys",
        "//idp.example/keys",
        "http://idp.example/keys",
        "HTTP://idp.example/keys",
        "ftp://idp.example/keys",
        "file:///keys",
        "data:application/json,{}",
        "https://",
        "https:///keys",
        "https://user@idp.example/keys",
        "https://user:secret@idp.example/keys",
        "https://[::1/keys",
        "https://idp.example/" + "k" * 2048,
    ],
)
def test_what_is_no_address_of_a_key_set(url: Any) -> None:
    """Nothing but https, and no credentials in it."""
    with pytest.raises(FetchFailed) as caught:
        _key_set_url({"jwks_uri": url})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("document", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_discovery_document(document: bytes) -> None:
    """Refused as such, and never an error of ours."""
    with pytest.raises(FetchFailed):
        _json_object(document)
