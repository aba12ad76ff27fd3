"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: the endpoints of callers who speak Anthropic Messages.

Plain ASGI, like that of chats.
"""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import FastAPI

from gateway.clock import wall
from gateway.dialects.anthropic.dialect import MessagesDialect
from gateway.dialects.anthropic.read import read_betas, read_messages_request
from gateway.edge import message_schemas as schemas
from gateway.edge.call import Call, Frontdesk
from gateway.edge.documented import add_component, serve_with
from gateway.edge.translated import Telling
from gateway.errors import MethodNotAllowed
from gateway.model import ChatRequest
from gateway.pipeline import Pipeline

PATH = "/v1/messages"
COUNT_PATH = PATH + "/count_tokens"

_BETA_HEADER = b"anthropic-beta"


class Messages(Telling):
    """The endpoint as an ASGI application."""

    def __init__(self, frontdesk: Frontdesk, pipeline: Pipeline, *, expose_backend: bool) -> None:
        super().__init__(frontdesk, pipeline, MessagesDialect("", wall), expose_backend=expose_backend)

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        call.dialect = dialect = MessagesDialect(call.record.request_id, wall)
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use POST here.", allow="POST")
        if call.scope["path"] == COUNT_PATH:
            return self._count(call)
        return self.translate(call, dialect.call(self.max_fields, betas_of(call)))

    async def _count(self, call: Call) -> None:
        """How many tokens the input of a request has. Raises GatewayError."""
        call.record.operation = ""
        betas, max_fields = betas_of(call), self.max_fields

        def read(body: bytes) -> ChatRequest:
            return read_messages_request(body, max_fields, read_betas(betas), counts_only=True)

        counted = await self._pipeline.count_input(call.head.credentials, call, read, call.record)
        fields = [
            (b"content-type", b"application/json"),
            (b"x-llm-gateway-scenario", counted.scenario.encode()),
            *counted.headers,
        ]
        await call.answer(200, b'{"input_tokens":%d}' % counted.tokens, call.dialect.header_fields(fields))


def betas_of(call: Call) -> str:
    """What the caller asks for by ``anthropic-beta``."""
    lines: list[bytes] = [value for name, value in call.scope["headers"] if name == _BETA_HEADER]
    return b",".join(lines).decode("latin-1")


def add_messages(app: FastAPI, endpoint: Messages) -> None:
    """Add the description of what ``endpoint`` serves to the FastAPI application of the data port."""
    for event in schemas.EVENTS:
        add_component(app, event)
    events = {"oneOf": [{"$ref": f"#/components/schemas/{event.__name__}"} for event in schemas.EVENTS]}
    stream = {"text/event-stream": {"schema": events}}
    told = {"content": stream, "description": "The message, whole or as a stream of events."}

    @app.post(
        PATH,
        summary="Message",
        tags=["inference"],
        response_model=schemas.Message,
        responses={**schemas.ERRORS, 200: told},
    )
    async def messages(body: schemas.MessagesRequest) -> None:  # documents the shape
        """Answer a conversation, as the Anthropic API does. With `stream: true` the answer comes as events."""

    @app.post(COUNT_PATH, summary="Tokens of a message", tags=["inference"], responses=schemas.ERRORS)
    async def count_tokens(body: schemas.TokenCountRequest) -> schemas.TokenCount:  # type: ignore[empty-body]
        """How many tokens the input of a message has: an estimate, unless the model's backend is Anthropic's."""

    serve_with(app, PATH, "POST", endpoint)
    serve_with(app, COUNT_PATH, "POST", endpoint)
