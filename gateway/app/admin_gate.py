"""The door of the admin API: who may come in, and with how much.

Invariants: without a token nothing of a body is read and nothing below ``/admin`` is told apart; tokens are compared in
constant time; a read-only token never reaches a handler that changes something.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final

from gateway.dialects.openai.errors import error_body
from gateway.edge.body import ClientGone, read_body
from gateway.errors import AdminTokenRefused, GatewayError, InvalidRequest, ReadOnlyToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX: Final = "/admin/"
MAX_BODY_BYTES: Final = 262_144
"""The largest body of a change: room for 64 limits and thousands of scenarios."""

BODY_TIMEOUT_S: Final = 10.0
_READING: Final = frozenset({"GET", "HEAD"})
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class AdminTokens:
    """The tokens of the admin API, asked for at every check, since they may change; at least one of them is set."""

    def __init__(self, token: Callable[[], str | None], read_token: Callable[[], str | None]) -> None:
        self._token = token
        self._read_token = read_token

    def check(self, authorization: bytes, method: str) -> None:
        """Let a request pass. Raises AdminTokenRefused, ReadOnlyToken."""
        scheme, _, presented = authorization.partition(b" ")
        digest = hashlib.sha256(presented.strip()).digest()
        full, reading = [_opens(digest, token()) for token in (self._token, self._read_token)]
        if scheme.lower() != b"bearer" or not (full or reading):
            raise AdminTokenRefused("A token of the admin API is needed: Authorization: Bearer TOKEN.")
        if not full and method not in _READING:
            raise ReadOnlyToken("This token may look and not change.")


def _opens(digest: bytes, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(digest, hashlib.sha256(token.encode()).digest())


class AdminGate:
    """Checks the token of every request below PREFIX and reads its body within bounds; lets everything else through."""

    def __init__(self, app: ASGIApp, tokens: AdminTokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._admitted(scope, receive)
        except GatewayError as error:
            await _answer(send, error)
        except ClientGone:
            return
        else:
            await self._app(scope, _replayed(body, receive), _uncached(send))

    async def _admitted(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of a request that may pass. Raises GatewayError, ClientGone."""
        authorization, lengths = [_values(scope, name) for name in (b"authorization", b"content-length")]
        if len(authorization) > 1:
            raise AdminTokenRefused("One token, please.")
        self._tokens.check(authorization[0] if authorization else b"", scope["method"])
        if lengths and _LENGTH.fullmatch(lengths[0]) is None:
            raise InvalidRequest("The content-length is not a number.")

        async def message() -> dict[str, Any]:
            return dict(await receive())

        return await read_body(message, int(lengths[0]) if lengths else None, MAX_BODY_BYTES, BODY_TIMEOUT_S)


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body that was read, and then whatever comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Any:
        return waiting.pop() if waiting else await receive()

    return next_message


def _uncached(send: Send) -> Send:
    """Forbid that an answer is stored on its way: one of them holds a key."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"cache-control", b"no-store")]}
        await send(message)

    return sent


async def _answer(send: Send, error: GatewayError) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if isinstance(error, AdminTokenRefused):
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error_body(error)})
