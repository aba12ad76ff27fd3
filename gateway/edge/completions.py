"""``POST /v1/completions``: the API before chats, for clients that still speak it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from gateway.dialects.completions.dialect import COMPLETIONS
from gateway.edge.call import Call, Frontdesk
from gateway.edge.documented import ERRORS, serve_with
from gateway.edge.translated import TranslatedCompletions
from gateway.pipeline import Pipeline

PATH: Final = "/v1/completions"


class TextCompletions(TranslatedCompletions):
    """The endpoint as an ASGI application."""

    def __init__(self, frontdesk: Frontdesk, pipeline: Pipeline, *, expose_backend: bool) -> None:
        super().__init__(frontdesk, pipeline, COMPLETIONS, expose_backend=expose_backend)

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        call.record.operation = "text_completion"
        return super().handle(call)


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class CompletionRequest(_Open):
    """A text to go on from; fields not listed here are passed on."""

    model: str = Field(description="The name or an alias of a scenario.")
    prompt: str | list[str] | list[int] | list[list[int]] = Field(
        description="Several texts, or tokens, only where the backend has completions itself; so are `echo`, `suffix`"
        " and `best_of`."
    )
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(1, ge=1, le=128)
    best_of: int | None = Field(1, ge=1, le=128)
    stop: str | list[str] | None = None
    echo: bool | None = False
    suffix: str | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = False
    seed: int | None = None
    user: str | None = None


class TextChoice(_Open):
    """One text."""

    text: str
    index: int
    logprobs: dict[str, Any] | None = None
    finish_reason: Literal["stop", "length", "content_filter"] | None = None


class TextCompletion(_Open):
    """The texts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: dict[str, Any] | None = None


def add_completions(app: FastAPI, endpoint: TextCompletions) -> None:
    """Add the description of what ``endpoint`` serves to the FastAPI application of the data port."""
    stream = {"text/event-stream": {"schema": {"type": "string"}}}

    @app.post(
        PATH,
        summary="Text completion (legacy)",
        tags=["inference"],
        response_model=TextCompletion,
        responses={**ERRORS, 200: {"content": stream, "description": "The texts, whole or as a stream."}},
    )
    async def completions(body: CompletionRequest) -> None:  # documents the shape
        """Go on from a prompt, by a backend's own completions, else by a chat of one message."""

    serve_with(app, PATH, "POST", endpoint)
