"""The management port: health and metrics, for operators only.

Never exposed to tenants: it has no credentials in this version, and a scrape names every tenant. It lives as long as
the worker does, longer than the data port, so that a drain can be watched.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.app.readiness import Readiness
from gateway.dialects.openai.errors import error_body
from gateway.edge.connections import ConnectionLimits
from gateway.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.telemetry import Metrics

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


def build_management(metrics: Metrics, readiness: Readiness) -> FastAPI:
    """The ASGI application of the management port."""
    app = FastAPI(title="LLM Gateway management", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers; says nothing about anything else."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, Any]:
        """Whether traffic should come here; 503 with the reasons where not."""
        reasons = readiness.reasons()
        if not reasons:
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "unavailable", "reasons": reasons}

    @app.get("/metrics")
    async def scrape(request: Request) -> Response:
        """The metrics of all workers, in the format that the Accept header prefers."""
        body, content_type = await asyncio.to_thread(metrics.render, request.headers.get("accept"))
        return Response(body, headers={"content-type": content_type})

    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(Exception, _refuse)
    return app


async def _refuse(_request: Request, failure: Exception) -> Response:
    error = _gateway_error(failure)
    headers = dict(failure.headers or {}) if isinstance(failure, HTTPException) else {}
    return Response(error_body(error), error.status, headers, "application/json")


def _gateway_error(failure: Exception) -> GatewayError:
    if isinstance(failure, RequestValidationError):
        return InvalidRequest("The request is not valid.")
    if not isinstance(failure, HTTPException):
        return InternalError(type(failure).__name__)
    if failure.status_code == HTTPStatus.NOT_FOUND:
        return NotFound("There is nothing at this path.")
    if failure.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed("This path does not have that method.")
    return InvalidRequest(str(failure.detail))
