"""The data port as one ASGI application: the inference endpoints first, FastAPI for everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway.auth import ClientAddress
from gateway.cache import ConversationBounds, Conversations, load_scripts
from gateway.clock import wall
from gateway.dialects.anthropic.dialect import MessagesDialect
from gateway.dialects.openai.members import read_members
from gateway.edge.body import Receive
from gateway.edge.call import Call, EdgeLimits, Frontdesk, Scope, Send
from gateway.edge.chat import PATH as CHAT_PATH
from gateway.edge.chat import ChatCompletions
from gateway.edge.completions import PATH as COMPLETIONS_PATH
from gateway.edge.completions import TextCompletions, add_completions
from gateway.edge.documented import BODY_PATHS, CALL_KEY, Completions, build_documented
from gateway.edge.messages import COUNT_PATH as MESSAGES_COUNT_PATH
from gateway.edge.messages import PATH as MESSAGES_PATH
from gateway.edge.messages import Messages, add_messages
from gateway.edge.models import add_models, is_of_anthropic
from gateway.edge.operations import add_operations, make_endpoints
from gateway.edge.responses import COUNT_PATH, Responses
from gateway.edge.responses import PATH as RESPONSES_PATH
from gateway.edge.responses_docs import add_responses
from gateway.edge.scenarios import PREFIX as SCENARIO_PREFIX
from gateway.edge.scenarios import ScenarioCompletions, add_scenarios
from gateway.edge.usage import add_usage
from gateway.meter.ledger import Ledger
from gateway.model import Frozen, IPNetwork
from gateway.operations import Operations
from gateway.pipeline import Pipeline
from gateway.telemetry import AccessLog, Metrics

_EXPOSED_HEADERS = (
    "x-request-id",
    "retry-after",
    "x-llm-gateway-scenario",
    "x-llm-gateway-answer",
    "x-llm-gateway-cache",
    "age",
    "x-llm-gateway-backend",
    "x-llm-gateway-degraded",
    *(f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    "request-id",
    *(
        f"anthropic-ratelimit-{unit}-{what}"
        for unit in ("requests", "tokens")
        for what in ("limit", "remaining", "reset")
    ),
)


class EdgeOptions(Frozen, frozen=True):
    """How the data port behaves; see the settings of the same names."""

    limits: EdgeLimits = EdgeLimits()
    trusted_proxies: tuple[IPNetwork, ...] = ()
    cors_allow_origins: tuple[str, ...] = ()
    default_scenario: str | None = None
    expose_backend: bool = False
    docs: bool = True


class Endpoint(Protocol):
    """A plain ASGI application of one path."""

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises GatewayError."""


class DataPort:
    """Sends each request to the application that serves it."""

    def __init__(
        self,
        frontdesk: Frontdesk,
        pipeline: Pipeline,
        completions: tuple[ChatCompletions, ScenarioCompletions],
        others: Mapping[str, Endpoint],
        documented: ASGIApp,
    ) -> None:
        self._frontdesk = frontdesk
        self._pipeline = pipeline
        self._chat, self._scenarios = completions
        self._others = others
        self._documented = documented

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"nothing here serves {scope['type']}")
        handle = self._chat.handle if scope["path"] == CHAT_PATH else self._other(scope)
        return self._frontdesk.receive(scope, receive, send, handle)

    def _other(self, scope: Scope) -> Callable[[Call], Awaitable[None]]:
        """Who serves what is not the chat endpoint."""
        endpoint = self._others.get(scope["path"])
        if endpoint is not None:
            return endpoint.handle
        is_call = scope["path"].startswith(SCENARIO_PREFIX) and scope["method"] not in ("GET", "HEAD")
        return self._scenarios.handle if is_call else self._serve_documented

    async def _serve_documented(self, call: Call) -> None:
        """Hand a request to FastAPI; where there is a body to read, it is read, bounded and checked as everywhere."""
        call.record.operation = ""
        if is_of_anthropic(call.scope):
            call.dialect = MessagesDialect(call.record.request_id, wall)
        scope = {**call.scope, CALL_KEY: call}
        body = b""
        if scope["method"] == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        elif scope["method"] == "POST" and scope["path"] in BODY_PATHS:
            await self._pipeline.identify(call.head.credentials, call.record)
            body = await call.body()
            read_members(body, self._frontdesk.limits.max_top_level_fields)
            scope["headers"] = [(b"content-type", b"application/json")]  # as on the chat endpoint, whatever was said
        pieces = iter(({"type": "http.request", "body": body, "more_body": False},))

        async def receive() -> dict[str, Any]:
            for piece in pieces:
                return piece
            # No disconnect ever: a client that leaves ends this task, and a disconnect would end the answer.
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await call.start(message["status"], call.dialect.header_fields(message["headers"]))
            elif message["type"] == "http.response.body":
                await call.send(message.get("body", b""), more=message.get("more_body", False))

        await self._documented(scope, receive, send)


class Served(NamedTuple):
    """What answers requests."""

    pipeline: Pipeline
    operations: Operations


def build(
    served: Served,
    metrics: Metrics,
    access_log: AccessLog,
    options: EdgeOptions,
    ledger: Ledger | None = None,
    conversations: Conversations | None = None,
) -> ASGIApp:
    """The ASGI application of the data port.

    Without a ``ledger`` there is no usage to be read; without ``conversations`` none can be gone on with.
    """
    pipeline = served.pipeline
    addresses = ClientAddress(options.trusted_proxies)
    frontdesk = Frontdesk(options.limits, addresses, metrics, access_log, pipeline.finished)
    chat = ChatCompletions(frontdesk, pipeline, expose_backend=options.expose_backend)
    scenarios = ScenarioCompletions(frontdesk, pipeline, expose_backend=options.expose_backend)
    completions = Completions(
        pipeline, options.default_scenario, options.limits.max_top_level_fields, expose_backend=options.expose_backend
    )
    documented = build_documented(completions, chat, docs=options.docs)
    add_models(documented, pipeline)
    add_scenarios(documented, pipeline, scenarios)
    add_usage(documented, pipeline, ledger)
    kept = conversations or Conversations(lambda: None, load_scripts(), ConversationBounds())
    responses = Responses(frontdesk, pipeline, kept, expose_backend=options.expose_backend)
    add_responses(documented, responses)
    messages = Messages(frontdesk, pipeline, expose_backend=options.expose_backend)
    add_messages(documented, messages)
    operations = make_endpoints(frontdesk, served.operations, expose_backend=options.expose_backend)
    add_operations(documented, operations)
    texts = TextCompletions(frontdesk, pipeline, expose_backend=options.expose_backend)
    add_completions(documented, texts)
    others: dict[str, Endpoint] = {
        COMPLETIONS_PATH: texts,
        RESPONSES_PATH: responses,
        COUNT_PATH: responses,
        MESSAGES_PATH: messages,
        MESSAGES_COUNT_PATH: messages,
        **operations,
    }
    app: ASGIApp = DataPort(frontdesk, pipeline, (chat, scenarios), others, documented)  # type: ignore[assignment]  # as in ``documented``
    if options.cors_allow_origins:
        frontdesk.is_wrapped = True
        app = CORSMiddleware(
            app,
            allow_origins=options.cors_allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    return app
