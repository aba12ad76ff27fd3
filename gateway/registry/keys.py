"""The format of API keys: made here, told apart from typos here, and kept nowhere but as digests.

A key is ``lgw_``, 32 random base62 characters (190 bits from the system's generator) and six base62 characters of
CRC-32 over everything before them. The checksum lets a secret scanner or a person tell a real key from a typo without
asking anybody. It is no proof: a presented key is accepted by its digest alone, and keys of another form are fine.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

KEY_PREFIX = "lgw_"
KEY_PATTERN = re.compile(r"[A-Za-z0-9._-]{16,256}")
"""What a presented key must match whole (``fullmatch``) before it is worth a digest."""

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS = 32
_CHECKSUM_CHARS = 6  # 62 ** 6 > 2 ** 32


def generate_key() -> str:
    """Return a new key of 42 characters with 190 random bits; show it once, store only its digest."""
    body = KEY_PREFIX + "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_CHARS))
    return body + _checksum(body)


def checksum_ok(key: str) -> bool:
    """Tell whether this is a well-formed key of the gateway's own making; False for a typo or a foreign format."""
    length = len(KEY_PREFIX) + _RANDOM_CHARS + _CHECKSUM_CHARS
    if len(key) != length or not key.startswith(KEY_PREFIX) or not key.isascii():
        return False
    return _checksum(key[:-_CHECKSUM_CHARS]) == key[-_CHECKSUM_CHARS:]


def key_digest(key: str | bytes) -> bytes:
    """Return the 32 bytes by which the registry knows a key: the SHA-256 of the whole of it."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def api_key_document(
    name: str,
    tenant: str,
    digest: bytes,
    *,
    expires_at: float | None = None,
    scenarios: Sequence[str] | None = None,
    schema: str | None = None,
) -> str:
    """Return the YAML of an ApiKey to store for a key with this digest; the key itself is not in it.

    ``expires_at`` is in Unix seconds. ``scenarios`` narrows what the tenant may use. ``schema`` is the path or URL of
    the JSON Schema for editors, relative to where the document will be stored.
    """
    entry = f"sha256: {_quoted(digest.hex())}"
    if expires_at is not None:
        moment = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry += f", expiresAt: {_quoted(moment)}"
    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines += [
        "apiVersion: llmgateway.dev/v1alpha1",
        "kind: ApiKey",
        "metadata:",
        f"  name: {_quoted(name)}",
        "spec:",
        f"  tenant: {_quoted(tenant)}",
        "  digests:",
        f"  - {{{entry}}}",
    ]
    if scenarios is not None:
        lines.append(f"  scenarios: [{', '.join(_quoted(scenario) for scenario in scenarios)}]")
    return "\n".join(lines) + "\n"


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    chars: list[str] = []
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, 62)
        chars.append(_BASE62[digit])
    return "".join(reversed(chars))


def _quoted(text: str) -> str:
    """A JSON string is a double-quoted YAML scalar."""
    return msgspec.json.encode(text).decode()
