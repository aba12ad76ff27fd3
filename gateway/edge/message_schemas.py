"""The shapes of Anthropic Messages for the documentation; fields that are not here pass to a backend that speaks it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Open(BaseModel):
    """A shape that may have further fields."""

    model_config = ConfigDict(extra="allow")


class MessagesErrorDetails(BaseModel):
    """What programs go by."""

    error_code: str | None = Field(None, description="The error in one word, e.g. `missing_field`.")
    param: str | None = Field(None, description="The field of the request that is at fault.")


class MessagesErrorDetail(BaseModel):
    """What went wrong."""

    type: str = Field(description="The kind of error, e.g. `invalid_request_error`.")
    message: str = Field(description="A sentence for people.")
    details: MessagesErrorDetails | None = None


class MessagesError(BaseModel):
    """The body of every answer that is not a success, and the data of the event that tells of an error."""

    type: Literal["error"] = "error"
    error: MessagesErrorDetail
    request_id: str | None = None


class MessageTurn(_Open):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]] = Field(
        description="Text, or blocks: `text`, `image`, `document`, `search_result`, `tool_use`, `tool_result`,"
        " `thinking`, `redacted_thinking`."
    )


class MessageTool(_Open):
    """A tool that the model may call."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="JSON Schema of the tool's input.")


class MessageToolChoice(_Open):
    """Which tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesRequest(_Open):
    """A request for a message; further fields are passed on to a backend that speaks Messages."""

    model: str = Field(min_length=1, description="The name or an alias of a scenario.", examples=["support-chat"])
    messages: list[MessageTurn] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    system: str | list[dict[str, Any]] | None = Field(None, description="Text, or blocks of text.")
    stream: bool | None = Field(False, description="Answer with server-sent events as the text is generated.")
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[MessageTool] | None = None
    tool_choice: MessageToolChoice | None = None
    thinking: dict[str, Any] | None = Field(None, description="For other backends, an effort of reasoning.")
    output_config: dict[str, Any] | None = Field(None, description="`effort`, and `format` with a JSON Schema.")
    metadata: dict[str, Any] | None = Field(None, description="`user_id`.")
    prompt_variables: dict[str, str] | None = Field(
        None, description="Values for the variables of the scenario's prompt; not passed on."
    )


class TokenCountRequest(MessagesRequest):
    """What to count the tokens of: a request that need not say how much may be answered."""

    max_tokens: int | None = Field(None, ge=1)  # type: ignore[assignment]  # the one field that differs


class TokenCount(BaseModel):
    """Tokens of a request."""

    input_tokens: int = Field(description="An estimate, unless the model's backend counts them itself.")


class MessageUsage(_Open):
    """Tokens of one call; `input_tokens` are those that no cache was read for, or written with."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class MessageBlock(_Open):
    """A part of an answer: `text`, `thinking`, `redacted_thinking` or `tool_use`."""

    type: str


class Message(_Open):
    """A whole answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[MessageBlock]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class MessageStart(_Open):
    """The first event: the message without its content."""

    type: Literal["message_start"]
    message: Message


class ContentBlockStart(_Open):
    """A block begins."""

    type: Literal["content_block_start"]
    index: int
    content_block: MessageBlock


class ContentBlockDelta(_Open):
    """More of a block: `text_delta`, `thinking_delta`, `signature_delta` or `input_json_delta`."""

    type: Literal["content_block_delta"]
    index: int
    delta: dict[str, Any]


class ContentBlockStop(_Open):
    """A block has ended."""

    type: Literal["content_block_stop"]
    index: int


class MessageDelta(_Open):
    """Why the answer ended, and what was used in all."""

    type: Literal["message_delta"]
    delta: dict[str, Any]
    usage: dict[str, Any]


class MessageStop(_Open):
    """The last event."""

    type: Literal["message_stop"]


EVENTS: tuple[type[BaseModel], ...] = (
    MessageStart,
    ContentBlockStart,
    ContentBlockDelta,
    ContentBlockStop,
    MessageDelta,
    MessageStop,
    MessagesError,
)
"""The data of the events of a stream; each is named by its type."""


class ModelInfo(BaseModel):
    """A scenario that the caller may name as `model`."""

    id: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: datetime.datetime
    lifecycle: Literal["active"] = "active"


class ModelPage(BaseModel):
    """A page of what the caller may use."""

    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": MessagesError, "description": "The request is wrong; the message names the field."},
    401: {"model": MessagesError, "description": "Missing, unknown, expired or disabled key."},
    404: {"model": MessagesError, "description": "No such model, or not for this key."},
    405: {"model": MessagesError, "description": "The method is not allowed here; `allow` lists those that are."},
    408: {"model": MessagesError, "description": "The body took too long to arrive."},
    413: {"model": MessagesError, "description": "The body is too large."},
    415: {"model": MessagesError, "description": "The model backend's own refusal."},
    422: {"model": MessagesError, "description": "The model backend's own refusal."},
    429: {"model": MessagesError, "description": "A limit or a budget has no room; see `retry-after`."},
    431: {"description": "The request's headers are too large or too many."},
    500: {"model": MessagesError, "description": "A fault of the gateway."},
    502: {"model": MessagesError, "description": "The model backend failed."},
    504: {"model": MessagesError, "description": "The model backend did not answer in time."},
    529: {
        "model": MessagesError,
        "description": "No backend has room, or limits cannot be checked; see `retry-after`.",
    },
}
"""How a call may fail, in the envelope of the Anthropic API."""
