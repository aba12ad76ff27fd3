"""Access tokens of Google service accounts: a JWT signed with the account's key, in exchange for a bearer token.

Invariants: https with a verified certificate, or a server on this machine's loopback; no redirect followed; one time
limit and one size limit for all of it; neither key nor token in a log or in the text of an error. What it takes is
imported at the first token: most gateways have no such account.

Sources: https://developers.google.com/identity/protocols/oauth2/service-account#httprest, RFC 7523 (the grant),
RFC 6749, 5 (the answers).
"""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.clock import wall
from gateway.model import Backend, Frozen
from gateway.model.credentials import GoogleServiceAccount
from gateway.upstream.client import tls_context
from gateway.upstream.tokens import KeptToken, KeptTokens, Token, TokenUnavailable

if TYPE_CHECKING:
    import ssl

    import httpx

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
"""Of the Gemini API and of Vertex AI; which models the account may use is decided by its roles."""

GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_LIFETIME_S: Final = 3600  # the most that Google takes
ANSWER_BYTES_MAX: Final = 65_536

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_ERROR = re.compile(r"[a-z_]{1,64}")
_LIFETIME_S = (1, 86_400)


class TokenOptions(Frozen, frozen=True):
    """Seconds for one exchange; how long before its end a token is renewed; the authorities of token endpoints."""

    timeout_s: float = 10.0
    renew_s: float = 300.0
    ca_file: Path | None = None


class _Answer(msgspec.Struct):
    access_token: str = ""
    token_type: str = ""
    expires_in: int = 0
    error: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


class GoogleTokens:
    """Makes signers for backends whose credential is a ``GoogleServiceAccount``."""

    def __init__(self, options: TokenOptions) -> None:
        self._options = options
        self._tls: ssl.SSLContext | None = None
        self._kept: KeptTokens[GoogleServiceAccount] = KeptTokens(self._keep)

    def __call__(self, backend: Backend) -> KeptToken:
        """Who signs requests to ``backend``."""
        account = backend.credential
        assert isinstance(account, GoogleServiceAccount), "made for those"
        return self._kept.of(account)

    async def close(self) -> None:
        """Give up what is being asked for."""
        await self._kept.close()

    def _keep(self, account: GoogleServiceAccount) -> KeptToken:
        return KeptToken(f"service account {account.email}", partial(self._fetch, account), self._options.renew_s)

    async def _fetch(self, account: GoogleServiceAccount) -> Token:
        """Raises TokenUnavailable."""
        assertion = await asyncio.to_thread(_assertion, account)
        client = await asyncio.to_thread(self._client)
        import httpx

        form = {"grant_type": GRANT, "assertion": assertion}
        try:
            async with (
                asyncio.timeout(self._options.timeout_s),
                client,
                client.stream("POST", account.token_uri, data=form) as response,
            ):
                return _token(response.status_code, await _bounded(response))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:  # TimeoutError is an OSError
            raise TokenUnavailable(_cause(error)) from None

    def _client(self) -> httpx.AsyncClient:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # what matters is told by KeptToken
        if self._tls is None:
            self._tls = tls_context(self._options.ca_file)
        return httpx.AsyncClient(
            verify=self._tls,
            timeout=self._options.timeout_s,
            follow_redirects=False,
            trust_env=False,
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "llm-gateway"},
        )


def _assertion(account: GoogleServiceAccount) -> str:
    """The JWT; takes a millisecond, and hundreds the first time, since it imports the cryptography."""
    from jose import jwt

    now = int(wall())
    claims = {
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": now,
        "exp": now + JWT_LIFETIME_S,
    }
    headers = {"kid": account.key_id} if account.key_id else None
    return jwt.encode(claims, account.private_key, algorithm="RS256", headers=headers)


async def _bounded(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise TokenUnavailable("it answered with a compressed body, which was not asked for")
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise TokenUnavailable(f"it answered with more than {ANSWER_BYTES_MAX} bytes")
    return body


def _token(status: int, body: bytes) -> Token:
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise TokenUnavailable(f"it answered {status} without a JSON object of a token") from None
    if status != 200:
        known = f" {answer.error}" if _ERROR.fullmatch(answer.error) else ""
        raise TokenUnavailable(f"it answered {status}{known}")
    least, most = _LIFETIME_S
    if answer.token_type.lower() != "bearer" or not _TOKEN.fullmatch(answer.access_token) or answer.expires_in < least:
        raise TokenUnavailable("it answered with no bearer token that ends")
    line = b"authorization: Bearer %b\r\n" % answer.access_token.encode()
    return Token(line=line, lifetime_s=min(answer.expires_in, most))


def _cause(error: Exception) -> str:
    """What went wrong, in words of the system and the TLS library, none of the answer's."""
    import httpx

    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "it took too long"
    if isinstance(error, OSError | httpx.ConnectError):
        return str(error) or type(error).__name__
    return type(error).__name__
