"""Fetches the key set of a token issuer: its discovery document, then the JWKS that it names.

OpenID Connect Discovery 1.0, sections 3 and 4; RFC 8414. Invariants: https with a verified certificate only, no
redirect followed, both documents within one time limit and each within a size limit, nothing sent but two plain GETs.
The HTTP client is imported at the first fetch: most gateways have no token issuer.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from gateway.auth.jwks import FetchFailed
from gateway.errors import SettingsInvalid
from gateway.model import Frozen

if TYPE_CHECKING:
    import httpx

WELL_KNOWN = "/.well-known/openid-configuration"
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "llm-gateway"}


class FetchOptions(Frozen, frozen=True):
    """Bounds of a fetch: seconds for both documents together, bytes for each; ``ca_file`` None: the system's."""

    timeout_s: float = 5.0
    max_document_bytes: int = 262_144
    ca_file: Path | None = None


class KeySetFetcher:
    """Fetches key sets; each fetch has a connection of its own."""

    def __init__(self, options: FetchOptions) -> None:
        """Raises SettingsInvalid for a file that holds no certificates."""
        self._options = options
        self._tls: ssl.SSLContext | None = None
        if options.ca_file is not None:
            self._tls = _tls_context(options.ca_file)

    async def __call__(self, issuer: str) -> bytes:
        """The JWKS document of ``issuer`` as it came. Raises FetchFailed."""
        client = await asyncio.to_thread(self._client)  # imports it, the first time: not on the event loop
        import httpx

        try:
            async with asyncio.timeout(self._options.timeout_s), client:
                described = _json_object(await self._get(client, issuer.rstrip("/") + WELL_KNOWN))
                if described.get("issuer") != issuer:
                    raise FetchFailed("its discovery document is another issuer's")
                return await self._get(client, _key_set_url(described))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:  # TimeoutError is an OSError
            raise FetchFailed(_cause(error)) from None

    def _client(self) -> httpx.AsyncClient:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # what matters of a fetch is told by IssuerKeys
        if self._tls is None:
            self._tls = _tls_context(None)
        return httpx.AsyncClient(
            verify=self._tls,
            timeout=self._options.timeout_s,
            follow_redirects=False,
            trust_env=False,
            headers=_HEADERS,
        )

    async def _get(self, client: httpx.AsyncClient, url: str) -> bytes:
        """The body of a 200, bounded. Raises FetchFailed and what the client raises."""
        most, body = self._options.max_document_bytes, b""
        async with client.stream("GET", url) as response:
            if response.status_code != 200:
                raise FetchFailed(f"{url} answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed(f"{url} answered with a compressed body, which was not asked for")
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > most:
                    raise FetchFailed(f"{url} answered with more than {most} bytes")
        return body


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # which ssl.SSLError is
        raise SettingsInvalid(
            f"LLM_GATEWAY_OIDC_CA_FILE: expected a file of certificates in PEM form, got {str(ca_file)!r}: {error}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _json_object(document: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise FetchFailed("its discovery document is no JSON object") from None


def _key_set_url(described: dict[str, Any]) -> str:
    """The JWKS of a discovery document; it may be on another host than the issuer, as large issuers have it."""
    url = described.get("jwks_uri")
    if not isinstance(url, str) or len(url) > 2048:
        raise FetchFailed("its discovery document names no key set")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise FetchFailed("the address of its key set is no URL") from None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise FetchFailed("the address of its key set is not an https URL")
    return url


def _cause(error: Exception) -> str:
    """What went wrong, in words of the system and the TLS library, none of the answer's."""
    import httpx

    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "it took too long"
    if isinstance(error, OSError | httpx.ConnectError):
        return str(error) or type(error).__name__
    return type(error).__name__
