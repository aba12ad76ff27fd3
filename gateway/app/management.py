"""The management port: health, metrics and the admin API, for operators only.

Never exposed to tenants: only the admin API asks for a token, and a scrape names every tenant. It lives as long as the
worker does, longer than the data port, so that a drain can be watched. ``/openapi.json`` describes all of it.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from gateway import __version__
from gateway.app.readiness import Readiness
from gateway.dialects.openai.errors import error_body
from gateway.edge.connections import ConnectionLimits
from gateway.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.telemetry import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from gateway.app.admin import Administration

LIMITS = ConnectionLimits(
    max_header_bytes=16384,
    max_header_count=64,
    max_connections=200,
    header_timeout_s=5.0,
    keep_alive_s=75.0,
    write_timeout_s=15.0,
    max_age_s=600.0,
)
"""Bounds of the management port: few clients, small requests."""

_PARAM_CHARS_MAX = 256


def build_management(metrics: Metrics, readiness: Readiness, admin: Administration | None = None) -> ASGIApp:
    """The ASGI application of the management port; ``admin`` adds the admin API where it has a token."""
    app = FastAPI(title="LLM Gateway management", version=__version__, docs_url=None, redoc_url=None)
    _add_health(app, metrics, readiness)
    app.add_exception_handler(GatewayError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(Exception, _refuse)
    if admin is None or admin.tokens is None:
        return app
    from gateway.app.admin_gate import AdminGate  # most gateways need none of it
    from gateway.app.admin_routes import admin_router

    app.include_router(admin_router(admin))
    return AdminGate(app, admin.tokens)


def _add_health(app: FastAPI, metrics: Metrics, readiness: Readiness) -> None:
    @app.get("/livez", tags=["health"], summary="Liveness")
    async def livez() -> dict[str, str]:
        """The process answers; says nothing about anything else."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], summary="Readiness", responses={503: {"description": "No traffic, please."}})
    async def readyz(response: Response) -> dict[str, Any]:
        """Whether traffic should come here; 503 with the reasons where not."""
        reasons = readiness.reasons()
        if not reasons:
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "unavailable", "reasons": reasons}

    @app.get("/metrics", tags=["health"], summary="Metrics", response_class=PlainTextResponse)
    async def scrape(request: Request) -> Response:
        """The metrics of all workers, in the format that the Accept header prefers."""
        body, content_type = await asyncio.to_thread(metrics.render, request.headers.get("accept"))
        return Response(body, headers={"content-type": content_type})


async def _refuse(_request: Request, failure: Exception) -> Response:
    error = _gateway_error(failure)
    headers = dict(failure.headers or {}) if isinstance(failure, HTTPException) else {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return Response(error_body(error), error.status, headers, "application/json")


def _gateway_error(failure: Exception) -> GatewayError:
    if isinstance(failure, GatewayError):
        return failure
    if isinstance(failure, RequestValidationError):
        return _first_problem(failure)
    if not isinstance(failure, HTTPException):
        return InternalError(type(failure).__name__)
    if failure.status_code == HTTPStatus.NOT_FOUND:
        return NotFound("There is nothing at this path.")
    if failure.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed("This path does not have that method.")
    return InvalidRequest(str(failure.detail))


def _first_problem(failure: RequestValidationError) -> InvalidRequest:
    """The first thing wrong with a request; the value itself is never repeated."""
    problem = failure.errors()[0]
    where = ".".join(map(str, problem["loc"][1:]))[:_PARAM_CHARS_MAX]
    if not where or problem["type"] == "json_invalid":
        return InvalidRequest("The body must be a JSON object, sent with `content-type: application/json`.")
    text = str(problem["msg"]).removeprefix("Value error, ")
    return InvalidRequest(f"`{where}`: {text}.", param=where)
