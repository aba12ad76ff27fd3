"""The JSON key of a Google service account, read and checked. No reason repeats anything that it holds.

Source: https://cloud.google.com/iam/docs/keys-create-delete#creating (the form of the file).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.model.credentials import GoogleServiceAccount

KEY_BYTES_MAX: Final = 65_536

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_BITS_MIN = 2048
_EMAIL = re.compile(r"[a-zA-Z0-9._+-]{1,128}@[a-z0-9.-]{1,253}")
_KEY_ID = re.compile(r"[!-~]{0,256}")


class _Key(msgspec.Struct):
    type: str
    client_email: str
    private_key: str
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
    private_key_id: str = ""


_decode = msgspec.json.Decoder(_Key).decode


def google_account(content: bytes) -> GoogleServiceAccount:
    """The account whose key ``content`` is. Raises ValueError.

    The token endpoint is an https one, or one on this machine's loopback, where nobody else can listen in.
    """
    if len(content) > KEY_BYTES_MAX:
        raise ValueError(f"names a secret of more than {KEY_BYTES_MAX} bytes")
    try:
        key = _decode(content)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("names a secret that is no JSON key of a service account") from None
    if (
        key.type != "service_account"
        or not _EMAIL.fullmatch(key.client_email)
        or not _KEY_ID.fullmatch(key.private_key_id)
    ):
        raise ValueError("names a secret that is no JSON key of a service account")
    if not _is_endpoint(key.token_uri):
        raise ValueError("names a key whose token_uri is no https URL")
    if not _is_rsa_key(key.private_key):
        raise ValueError(f"names a key whose private_key is no RSA key of at least {_BITS_MIN} bits in PEM form")
    return GoogleServiceAccount(
        email=key.client_email, key_id=key.private_key_id, private_key=key.private_key, token_uri=key.token_uri
    )


def _is_endpoint(url: str) -> bool:
    if len(url) > 2048 or not re.fullmatch(r"[!-~]+", url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or "#" in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _is_rsa_key(pem: str) -> bool:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # most registries name no such key
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        # Its numbers are not proven prime, which takes a quarter of a second: that is seen when something is signed.
        key = load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    except Exception:  # noqa: BLE001  # of whatever kind its fault is, and some of the library's texts quote it
        return False
    return isinstance(key, RSAPrivateKey) and key.key_size >= _BITS_MIN
