"""The FastAPI side of the data port: documentation, ``/generate``, ``/chat/completion``; and more of it in ``models``,
``scenarios`` and ``usage``.

Everything that is not called thousands of times a second lives here, typed and documented by its models. The inference
endpoints appear in the same documentation, but their routes lead to the plain ASGI applications that serve them.
Every request comes through the Frontdesk, which leaves its Call in the scope; handlers get it by dependency.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from gateway import __version__
from gateway.dialects.openai.request import read_chat_request
from gateway.edge import chat as chat_endpoint
from gateway.edge import schemas
from gateway.edge.body import Receive, Written
from gateway.edge.call import Call, Scope, Send, error_headers, note_error
from gateway.edge.chat import reply_headers
from gateway.edge.wire import header_fields
from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    UpstreamFailed,
)
from gateway.model import ChatRequest
from gateway.pipeline import Pipeline
from gateway.reply import Reply

CALL_KEY = "llm_gateway.call"
"""Where the scope of a request holds its Call."""

BODY_PATHS = frozenset({"/generate", "/chat/completion"})
"""Where a POST has a body that this application reads."""

_DESCRIPTION = """
One endpoint for every model. Call it as you would call the OpenAI API, or at `/v1/messages` the Anthropic API, with
your tenant's key and the name of a scenario as `model`. The key goes into `Authorization: Bearer`, `x-api-key` or
`api-key`.
"""
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.ErrorBody, "description": "The request is wrong; `param` names the field."},
    401: {"model": schemas.ErrorBody, "description": "Missing, unknown, expired or disabled key."},
    404: {"model": schemas.ErrorBody, "description": "No such model, or not for this key."},
    405: {"model": schemas.ErrorBody, "description": "The method is not allowed here; `allow` lists those that are."},
    408: {"model": schemas.ErrorBody, "description": "The body took too long to arrive."},
    413: {"model": schemas.ErrorBody, "description": "The body is too large."},
    415: {"description": "The model backend's own refusal, with its body."},
    422: {"description": "The model backend's own refusal, with its body."},
    429: {"model": schemas.ErrorBody, "description": "A limit or a budget has no room; see `retry-after`."},
    431: {"model": schemas.ErrorBody, "description": "The request's headers are too large or too many."},
    500: {"model": schemas.ErrorBody, "description": "A fault of the gateway."},
    502: {"model": schemas.ErrorBody, "description": "The model backend failed."},
    503: {
        "model": schemas.ErrorBody,
        "description": "No backend has room, or limits cannot be checked; see `retry-after`.",
    },
    504: {"model": schemas.ErrorBody, "description": "The model backend did not answer in time."},
}
LOOKUP_ERRORS: dict[int | str, dict[str, Any]] = {
    **{status: ERRORS[status] for status in (401, 405, 431, 500)},
    "4XX": {"model": schemas.ErrorBody, "description": "Another fault of the request."},
}
"""How a request that only looks something up may fail."""


def call_of(request: Request) -> Call:
    """The Call of this request."""
    call: Call = request.scope[CALL_KEY]
    return call


TheCall = Annotated[Call, Depends(call_of)]


class _FirstMessage(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _FirstMessage


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class Completions:
    """Whole chat completions for handlers that want a text and nothing else."""

    def __init__(
        self, pipeline: Pipeline, default_scenario: str | None, max_fields: int, *, expose_backend: bool
    ) -> None:
        self._pipeline = pipeline
        self._default_scenario = default_scenario
        self._max_fields = max_fields
        self._expose_backend = expose_backend

    async def complete(self, call: Call, response: Response, prompt: str, fields: dict[str, Any]) -> tuple[str, str]:
        """The text that answers ``prompt`` and the scenario it came from, whose headers go to ``response``.

        Raises GatewayError, _Refused.
        """
        messages = [{"role": "user", "content": prompt}]
        given = {name: value for name, value in fields.items() if value is not None}
        written = Written(msgspec.json.encode({"messages": messages, **given}), call)

        def read(body: bytes) -> ChatRequest:
            return read_chat_request(body, self._max_fields, self._default_scenario)

        call.record.operation = "chat"
        reply = await self._pipeline.chat(call.head.credentials, written, read, call.record)
        headers = reply_headers(reply, expose_backend=self._expose_backend) + header_fields(reply.lines)
        try:
            if reply.status != 200:
                raise _Refused(Response(reply.body, reply.status, _decoded(headers)))
            response.headers.update(_decoded(headers[1:]))
            return _text_of(reply), reply.scenario
        finally:
            reply.close()


def _text_of(reply: Reply) -> str:
    try:
        completion = msgspec.json.decode(reply.body or b"", type=_Completion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamFailed("The model backend failed to answer.", detail=str(error)) from None
    return (completion.choices[0].message.content or "") if completion.choices else ""


def _decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


class _Refused(Exception):
    """The backend refused the request; its answer passes through."""

    def __init__(self, response: Response) -> None:
        super().__init__(str(response.status_code))
        self.response = response


def build_documented(completions: Completions, chat: chat_endpoint.ChatCompletions, *, docs: bool) -> FastAPI:
    """The FastAPI application of the data port."""
    options: dict[str, Any] = {
        "title": "LLM Gateway",
        "version": __version__,
        "description": _DESCRIPTION,
        "dependencies": [Depends(scheme) for scheme in _security()],
        "redirect_slashes": False,
    }
    if docs:
        app = FastAPIOffline(redoc_url=None, static_url="/docs/static", **options)
    else:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, **options)
    _add_chat(app, chat)
    _add_simple(app, completions)
    _add_error_handlers(app)
    return app


def _security() -> list[Any]:
    """Documentation only: credentials are judged by ``auth``."""
    return [
        HTTPBearer(scheme_name="bearer", auto_error=False, description="An API key."),
        *(APIKeyHeader(name=name, scheme_name=name, auto_error=False) for name in ("x-api-key", "api-key")),
    ]


def _add_chat(app: FastAPI, chat: chat_endpoint.ChatCompletions) -> None:
    @app.post(
        chat_endpoint.PATH,
        summary="Chat completion",
        tags=["inference"],
        response_model=schemas.ChatCompletion,
        responses=completion_responses(app),
    )
    async def chat_completions(body: schemas.ChatCompletionRequest) -> None:  # documents the shape
        """Answer a conversation. With `stream: true` the answer comes as server-sent events, ended by `[DONE]`."""

    serve_with(app, chat_endpoint.PATH, "POST", chat)


def completion_responses(app: FastAPI) -> dict[int | str, dict[str, Any]]:
    """How a call of a model may be answered: whole, as a stream, or with an error."""
    add_component(app, schemas.ChatCompletionChunk)
    stream = {"text/event-stream": {"schema": {"$ref": _COMPONENTS.format(model="ChatCompletionChunk")}}}
    return {**ERRORS, 200: {"content": stream, "description": "The completion, whole or as a stream."}}


class PlainEndpoint(Protocol):
    """A plain ASGI application."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""


def serve_with(app: FastAPI, path: str, method: str, endpoint: PlainEndpoint) -> None:
    """Have a route that documents a shape lead to the plain ASGI application that serves it."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == path and method in (route.methods or ()):
            route.app = endpoint  # type: ignore[assignment]  # starlette types messages as any mapping, we as dict


_COMPONENTS = "#/components/schemas/{model}"


def add_component(app: FastAPI, model: type[BaseModel]) -> None:
    """Describe a model that no route is typed by: FastAPI finds those of whole bodies alone."""
    described = model.model_json_schema(ref_template=_COMPONENTS, mode="serialization")
    added = {**described.pop("$defs", {}), model.__name__: described}
    without = app.openapi

    def openapi() -> dict[str, Any]:
        document = without()
        known = document["components"]["schemas"]
        for name, schema in added.items():
            known.setdefault(name, schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it extended


def _add_simple(app: FastAPI, completions: Completions) -> None:
    @app.post("/generate", summary="Generate text", tags=["simple"], responses=ERRORS)
    async def generate(body: schemas.GenerateRequest, call: TheCall, response: Response) -> schemas.GenerateResponse:
        """Continue a prompt."""
        fields = {"model": body.model, "max_tokens": body.max_length, "temperature": body.temperature}
        text, _ = await completions.complete(call, response, body.prompt, fields)
        return schemas.GenerateResponse(generated_text=text)

    @app.post("/chat/completion", summary="Answer a prompt", tags=["simple"], responses=ERRORS)
    async def chat_completion(
        body: schemas.SimpleChatRequest, call: TheCall, response: Response
    ) -> schemas.SimpleChatResponse:
        """Answer one prompt."""
        text, scenario = await completions.complete(call, response, body.prompt, {"model": body.model})
        return schemas.SimpleChatResponse(result=text, model=scenario)


def _add_error_handlers(app: FastAPI) -> None:
    async def gateway_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return _error_response(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _error_response(request, _first_problem(error))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == MethodNotAllowed.status:
            allow = (error.headers or {}).get("Allow", "GET, HEAD")
            return _error_response(request, MethodNotAllowed("The method is not allowed here.", allow=allow))
        if error.status_code == InvalidRequest.status:  # a number too long for Python, nesting too deep for it
            return _error_response(request, InvalidRequest("The body could not be read.", code="invalid_json"))
        return _error_response(request, NotFound("No such path."))

    async def refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
        assert isinstance(error, _Refused)
        return error.response

    async def fault(request: Request, error: Exception) -> Response:
        return _error_response(request, InternalError(type(error).__name__))

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        GatewayError: gateway_error,
        RequestValidationError: invalid,
        HTTPException: http_error,
        _Refused: refused,
        Exception: fault,  # starlette raises it again after the answer, so that the Frontdesk logs it
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _error_response(request: Request, error: GatewayError) -> Response:
    call = call_of(request)
    note_error(call.record, error)
    return Response(call.dialect.error_body(error), call.dialect.status(error), _decoded(error_headers(error)))


_MAX_PARAM_CHARS = 256
_CODES = {"missing": "missing_field", "extra_forbidden": "unsupported_field", "json_invalid": "invalid_json"}


def _first_problem(error: RequestValidationError) -> InvalidRequest:
    """The first thing wrong with a body; the value itself is never repeated."""
    problem = error.errors()[0]
    kind = str(problem["type"])
    where = ".".join(str(part) for part in problem["loc"][1:])[:_MAX_PARAM_CHARS] or None
    code = _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
    text = str(problem["msg"])
    message = f"`{where}`: {text}." if where is not None else f"The body is not valid: {text}."
    return InvalidRequest(message, code=code, param=where)
