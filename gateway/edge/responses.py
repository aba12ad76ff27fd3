"""``POST /v1/responses`` and ``POST /v1/responses/input_tokens``.

A response is a chat completion told in other words, but for one thing: its caller may go on from it by its id. So what
was said is kept for a time, per tenant, unless the caller says ``store: false``, and is found before the call is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Mapping
from typing import Final

import msgspec

from gateway.cache import Conversations
from gateway.clock import wall
from gateway.dialects.contract import ClientCall, Translator
from gateway.dialects.responses.answer import Envelope, Item
from gateway.dialects.responses.dialect import RESPONSES, ResponsesCall
from gateway.dialects.responses.passing import Watched, answered
from gateway.dialects.responses.read import Asked, read_asked, read_request
from gateway.edge.call import Call, Frontdesk
from gateway.edge.translated import Telling
from gateway.errors import MethodNotAllowed
from gateway.meter import estimate_usage
from gateway.model import Principal
from gateway.pipeline import Pipeline
from gateway.registry import resolve

PATH: Final = "/v1/responses"
COUNT_PATH: Final = PATH + "/input_tokens"
_ID_BYTES: Final = 24
_encode = msgspec.json.Encoder().encode


class _Taken:
    """A request whose body was taken; see ``Incoming``."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def body_now(self) -> bytes:
        """Nothing that anybody reads."""
        return b""

    async def body(self) -> bytes:
        """Nothing that anybody reads."""
        return b""

    @property
    def cache_control(self) -> bytes:
        """See ``Incoming``."""
        return self._call.cache_control

    @property
    def routing_headers(self) -> Mapping[str, str]:
        """See ``Incoming``."""
        return self._call.routing_headers


class _Turn:
    """One turn of a tenant's conversation, to be kept once it is answered."""

    def __init__(self, conversations: Conversations, tenant: str, asked: Asked, response_id: str) -> None:
        self._conversations = conversations
        self._tenant = tenant
        self._asked = asked
        self._id = response_id

    def keep(self, output: list[Item]) -> None:
        """Keep it under the id that was made for it."""
        self.keep_as(self._id, output)

    def keep_as(self, response_id: str, output: list[Item] | list[msgspec.Raw]) -> None:
        """Keep it under the id that its backend gave it."""
        asked = self._asked
        if asked.store:
            self._conversations.keep(self._tenant, response_id, asked.previous, [*asked.items, *output])


class _PassableCall(ResponsesCall):
    """A call whose answer may also pass as it is."""

    def __init__(
        self, turn: _Turn, asked: Asked, earlier: list[msgspec.Raw], envelope: Envelope, max_bytes: int
    ) -> None:
        super().__init__(asked, earlier, envelope, max_bytes, turn.keep)
        self.turn = turn


class Responses(Telling):
    """The endpoints as an ASGI application."""

    def __init__(
        self, frontdesk: Frontdesk, pipeline: Pipeline, conversations: Conversations, *, expose_backend: bool
    ) -> None:
        super().__init__(frontdesk, pipeline, RESPONSES, expose_backend=expose_backend)
        self._conversations = conversations

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        call.dialect = RESPONSES
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use POST here.", allow="POST")
        return self._count(call) if call.scope["path"] == COUNT_PATH else self._create(call)

    async def _asked(self, call: Call) -> tuple[Principal, Asked, list[msgspec.Raw]]:
        """Who asks for what, and the conversation so far. Raises GatewayError."""
        principal = await self._pipeline.identify(call.head.credentials, call.record)
        asked = read_asked(await call.body(), self.max_fields)
        if asked.previous is None:
            return principal, asked, []
        return principal, asked, await self._conversations.items(principal.tenant.name, asked.previous)

    async def _create(self, call: Call) -> None:
        principal, asked, earlier = await self._asked(call)
        response_id = "resp_" + secrets.token_hex(_ID_BYTES)
        turn = _Turn(self._conversations, principal.tenant.name, asked, response_id)
        envelope = Envelope(asked, response_id, int(wall()))
        await self.translate(
            call, _PassableCall(turn, asked, earlier, envelope, self._conversations.bounds.max_bytes), _Taken(call)
        )

    def passed_events(self, client: ClientCall) -> Translator:
        """Looks for the end of a response, to keep it."""
        assert isinstance(client, _PassableCall), "made above"
        return Watched(client.turn.keep_as)

    def passed_whole(self, client: ClientCall, body: bytes) -> None:
        """Keep a response that passes as it is."""
        assert isinstance(client, _PassableCall), "made above"
        found = answered(body)
        if found is not None:
            client.turn.keep_as(*found)

    async def _count(self, call: Call) -> None:
        """How many tokens the input of a request is, about: nobody is asked. Raises GatewayError."""
        call.record.operation = ""
        principal, asked, earlier = await self._asked(call)
        call.record.scenario = resolve(principal, asked.model).name
        count = estimate_usage(read_request(asked, earlier), 0).input_tokens
        body = _encode({"object": "response.input_tokens", "input_tokens": count})
        await call.answer(200, body, [(b"content-type", b"application/json")])
