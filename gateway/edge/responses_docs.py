"""The documentation of ``/v1/responses``; requests are served by ``gateway.edge.responses``.

A request is not validated against its model here: the model documents the fields that are common
(https://platform.openai.com/docs/api-reference/responses/create).
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from gateway.edge.documented import ERRORS, serve_with
from gateway.edge.responses import COUNT_PATH, PATH, Responses

_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


class ResponsesRequest(BaseModel):
    """A request for a response; what a backend of another dialect cannot do is refused, and its field named."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="The name of a scenario, or an alias.")
    input: str | list[dict[str, Any]] = Field(
        description="What the user says, or items: messages, `function_call`, `function_call_output`, `reasoning`."
    )
    instructions: str | None = Field(None, description="Goes before the conversation, and is of this request alone.")
    previous_response_id: str | None = Field(
        None,
        description="Go on from this response, which was kept unless `store` was false, for a time, for the tenant.",
    )
    store: bool | None = Field(True, description="Whether the response can be gone on from.")
    stream: bool | None = Field(False, description="Answer with server-sent events as the text is generated.")
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    tools: list[dict[str, Any]] | None = Field(None, description="Functions.")
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    text: dict[str, Any] | None = Field(None, description="`format`: text, json_object or json_schema; `verbosity`.")
    reasoning: dict[str, Any] | None = Field(None, description="`effort`, `summary`.")
    include: list[str] | None = Field(
        None, description="`reasoning.encrypted_content`, `message.output_text.logprobs`."
    )
    metadata: dict[str, Any] | None = None


class ResponseUsage(BaseModel):
    """Tokens of one call."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseBody(BaseModel):
    """A response."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]] = Field(description="Items: `reasoning`, `message`, `function_call`.")
    usage: ResponseUsage | None
    incomplete_details: dict[str, str] | None
    error: dict[str, str] | None


class InputTokens(BaseModel):
    """How many tokens the input of a request is, about."""

    object: Literal["response.input_tokens"]
    input_tokens: int


def add_responses(app: FastAPI, endpoint: Responses) -> None:
    """Describe what ``endpoint`` serves, in the FastAPI application of the data port."""
    answers: dict[int | str, dict[str, Any]] = {
        **ERRORS,
        200: {"content": _STREAM, "description": "The response, whole or as a stream."},
    }

    @app.post(PATH, summary="Response", tags=["inference"], response_model=ResponseBody, responses=answers)
    async def responses(body: ResponsesRequest) -> None:  # documents the shape
        """Answer as OpenAI's Responses do, whatever the backend speaks."""

    @app.post(
        COUNT_PATH, summary="Count input tokens", tags=["inference"], response_model=InputTokens, responses=ERRORS
    )
    async def input_tokens(body: ResponsesRequest) -> None:  # documents the shape
        """Estimate the tokens of a request's input, of a conversation so far, too; no model is asked."""

    for path in (PATH, COUNT_PATH):
        serve_with(app, path, "POST", endpoint)
