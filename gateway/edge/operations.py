"""What is asked of models beside chat completions: ``/v1/embeddings`` and the others, as plain ASGI applications.

Invariant: an answer that passes as it comes and breaks off is cut, so that nobody takes a part of it for all of it;
events end with one that says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from gateway.dialects.openai.operations import SHAPES, UPLOADED
from gateway.dialects.openai.replay import EVENT_STREAM
from gateway.edge import operation_schemas as schemas
from gateway.edge.body import Receive, too_large
from gateway.edge.call import Call, Frontdesk, Scope, Send
from gateway.edge.chat import Pieces, reply_headers, send_stream
from gateway.edge.documented import ERRORS, serve_with
from gateway.edge.head import refuse_encoded_body
from gateway.edge.wire import header_fields
from gateway.errors import MethodNotAllowed
from gateway.model import Operation
from gateway.operations import Operations
from gateway.reply import Reply

PATHS: Final[Mapping[Operation, str]] = MappingProxyType({name: f"/v1{shape.path}" for name, shape in SHAPES.items()})


class OperationEndpoint:
    """One of them."""

    def __init__(
        self, frontdesk: Frontdesk, operations: Operations, operation: Operation, *, expose_backend: bool
    ) -> None:
        self._frontdesk = frontdesk
        self._operations = operations
        self._operation = operation
        self._expose_backend = expose_backend

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        return self._frontdesk.receive(scope, receive, send, self.handle)

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        call.record.operation = SHAPES[self._operation].name
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use POST here.", allow="POST")
        return self._answer(call)

    async def _answer(self, call: Call) -> None:
        operations, credentials = self._operations, call.head.credentials
        if self._operation in UPLOADED:
            reply = await operations.upload(self._operation, credentials, Form(call), call.record)
        else:
            reply = await operations.perform(self._operation, credentials, call, call.record)
        try:
            headers = reply_headers(reply, expose_backend=self._expose_backend) + header_fields(reply.lines)
            if reply.stream is None:
                await call.answer(reply.status, reply.body or b"", headers)
            elif reply.content_type.lower().startswith(EVENT_STREAM):
                await send_stream(call, reply.status, reply.stream, headers)
            else:
                await _send_bytes(call, reply, reply.stream, headers)
        finally:
            reply.close()


async def _send_bytes(call: Call, reply: Reply, stream: Pieces, headers: list[tuple[bytes, bytes]]) -> None:
    """Pass on what comes; where it breaks off nothing more is sent, and the connection ends."""
    await call.start(reply.status, headers)
    while True:
        piece = stream.take()
        if piece is None:
            piece = await stream.relay(call.push)
            if piece is None:
                continue
        if not piece:
            break
        if not call.push(piece):
            await call.send(piece, more=True)
    if call.record.stream_end_reason == "complete":
        await call.send(b"", more=False)


class Form:
    """The form that a call brings; see ``IncomingForm``."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.cache_control = call.cache_control
        self.routing_headers = call.routing_headers
        self.length = call.head.content_length
        types = [value for name, value in call.scope["headers"] if name == b"content-type"]
        self.content_type: bytes = types[0] if len(types) == 1 else b""

    async def piece(self) -> bytes:
        """The next piece of the body. Raises GatewayError, ClientGone."""
        call = self._call
        limits = call.limits
        if call.record.bytes_in == 0:
            refuse_encoded_body(call.head)
            if self.length is not None and self.length > limits.max_upload_bytes:
                raise too_large(limits.max_upload_bytes)
        data = await call.piece()
        if call.record.bytes_in > limits.max_upload_bytes:
            raise too_large(limits.max_upload_bytes)
        return data


def make_endpoints(
    frontdesk: Frontdesk, operations: Operations, *, expose_backend: bool
) -> dict[str, OperationEndpoint]:
    """Each of them, by its path."""
    return {
        path: OperationEndpoint(frontdesk, operations, operation, expose_backend=expose_backend)
        for operation, path in PATHS.items()
    }


_DOCUMENTED: tuple[tuple[Operation, str, str, type[BaseModel] | None, type[BaseModel] | None], ...] = (
    (
        "embeddings",
        "Embeddings",
        "Vectors of texts. A large call is split for backends that take fewer inputs at once.",
        schemas.EmbeddingsRequest,
        schemas.Embeddings,
    ),
    (
        "moderations",
        "Moderation",
        "Whether texts or images are harmful.",
        schemas.ModerationRequest,
        schemas.Moderation,
    ),
    ("rerank", "Rerank", "Documents in the order of their relevance.", schemas.RerankRequest, schemas.Ranking),
    ("images", "Images", "Images made of a text.", schemas.ImageRequest, schemas.Images),
    ("speech", "Speech", "A text as sound, which is passed on as it comes.", schemas.SpeechRequest, None),
    (
        "transcriptions",
        "Transcription",
        "Sound as text. The form is passed on as it comes; `model` has to be near its beginning.",
        None,
        schemas.Transcription,
    ),
    (
        "translations",
        "Translation",
        "Sound as English text. The form is passed on as it comes; `model` has to be near its beginning.",
        None,
        schemas.Transcription,
    ),
)


def add_operations(app: FastAPI, endpoints: Mapping[str, OperationEndpoint]) -> None:
    """Add the descriptions of what ``endpoints`` serve to the FastAPI application of the data port."""
    for operation, summary, text, asked, answered in _DOCUMENTED:
        path = PATHS[operation]
        content: dict[str, Any] = {"schema": schemas.UPLOAD_SCHEMA} if asked is None else {}

        async def endpoint(body: Any) -> None:  # documents the shape
            """Documented below."""

        endpoint.__annotations__["body"] = asked or dict[str, Any]
        extra = {"requestBody": {"required": True, "content": {"multipart/form-data": content}}} if content else None
        app.add_api_route(
            path,
            endpoint if asked is not None else _upload,
            methods=["POST"],
            summary=summary,
            description=text,
            tags=["inference"],
            name=operation,
            response_model=answered,
            responses={**ERRORS, 200: {"content": {"audio/mpeg": {}}}} if answered is None else ERRORS,
            openapi_extra=extra,
        )
        serve_with(app, path, "POST", endpoints[path])


async def _upload() -> None:
    """Documents the shape; the plain ASGI application serves."""
