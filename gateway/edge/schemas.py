"""The shapes of requests and responses, for validation where FastAPI serves and for the documentation everywhere.

A chat request is not validated against its model here: fields that the gateway does not use pass through untouched,
and the model only documents the common ones (https://platform.openai.com/docs/api-reference/chat/create).
"""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Open(BaseModel):
    """A shape that may have further fields."""

    model_config = ConfigDict(extra="allow")


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="A sentence for people.")
    type: str = Field(description="The kind of error, e.g. `invalid_request_error`.")
    param: str | None = Field(description="The field of the request that is at fault.")
    code: str | None = Field(description="The error in one word, e.g. `missing_field`.")


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ChatMessage(_Open):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = Field(
        None, description="Text, or parts: `text`, `image_url`, `input_audio`, `file`."
    )
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(_Open):
    """Options of a stream."""

    include_usage: bool = Field(False, description="Send a last event with the usage of the whole call.")


class _Sampling(_Open):
    """How an answer is generated."""

    stream: bool | None = Field(False, description="Answer with server-sent events as the text is generated.")
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(1, ge=1, le=128, description="How many answers to generate.")
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[str, float] | None = None
    top_k: int | None = Field(None, ge=-1, description="Not OpenAI's: for servers that take it.")
    min_p: float | None = Field(None, ge=0, le=1, description="Not OpenAI's: for servers that take it.")
    repetition_penalty: float | None = Field(None, gt=0, description="Not OpenAI's: for servers that take it.")


class ChatCompletionRequest(_Sampling):
    """A chat completion request; fields not listed here are passed on to the model's backend as they are."""

    model: str = Field(description="The name or an alias of a scenario.", examples=["support-chat"])
    messages: list[ChatMessage] = Field(min_length=1)
    metadata: dict[str, Any] | None = Field(
        None, description="Passed on, but for an object `variables` in it, which does what `prompt_variables` does."
    )
    prompt_variables: dict[str, str] | None = Field(
        None, description="Values for the variables of the scenario's prompt; not passed on."
    )


class ScenarioRequest(_Sampling):
    """A call of a scenario; fields not listed here are passed on as those of a chat completion request."""

    variables: dict[str, str] | None = Field(
        None, description="Values for the variables of the scenario's prompt.", examples=[{"context": "A long text."}]
    )
    input: str | None = Field(
        None, min_length=1, description="What the user says. Needed where the scenario has no prompt, or one for it."
    )


class ScenarioCard(BaseModel):
    """A scenario that the caller may use."""

    name: str = Field(description="Its name in the path, and as `model` of a chat completion.")
    object: Literal["scenario"] = "scenario"
    description: str
    aliases: list[str] = Field(description="Further names of it.")
    created: int = Field(description="Unix time in seconds.")
    variables: dict[str, Any] = Field(description="JSON Schema (draft 2020-12) of `variables`.")
    answer: dict[str, Any] | None = Field(description="JSON Schema of the text of an answer; null: none is promised.")


class ScenarioList(BaseModel):
    """What the caller may use."""

    object: Literal["list"] = "list"
    data: list[ScenarioCard]


class TokenUsage(_Open):
    """Tokens of one call."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatChoice(_Open):
    """One answer."""

    index: int
    message: ChatMessage
    finish_reason: str | None = None


class ChatCompletion(_Open):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage | None = None


class ChatDelta(_Open):
    """What an event adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChunkChoice(_Open):
    """The part of one answer that an event carries."""

    index: int
    delta: ChatDelta
    finish_reason: str | None = None


class ChatCompletionChunk(_Open):
    """The data of one event of a streamed chat completion; the last event's is `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice] = Field(description="Empty in the event that reports usage.")
    usage: TokenUsage | None = None


class ModelCard(BaseModel):
    """A scenario that the caller may name as `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time in seconds.")
    owned_by: str = "llm-gateway"


class ModelList(BaseModel):
    """What the caller may use."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class GenerateRequest(BaseModel):
    """A prompt to be continued."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(min_length=1)
    max_length: int | None = Field(None, ge=1, le=1_000_000_000, description="Most tokens to generate.")
    temperature: float | None = Field(None, ge=0, le=2)
    model: str | None = Field(None, min_length=1, description="A scenario; the configured default without it.")


class GenerateResponse(BaseModel):
    """The generated text."""

    generated_text: str


class SimpleChatRequest(BaseModel):
    """A prompt to be answered."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(min_length=1)
    model: str | None = Field(None, min_length=1, description="A scenario; the configured default without it.")


class SimpleChatResponse(BaseModel):
    """The answer, and the model that gave it."""

    result: str
    model: str = Field(description="The scenario that answered.")


class UsageNumbers(BaseModel):
    """What a group of calls used."""

    requests: int = Field(description="Calls, failed ones included; refused ones are not counted.")
    input_tokens: int
    cached_input_tokens: int = Field(description="Part of `input_tokens` that the backend had cached.")
    output_tokens: int
    cost_usd: str = Field(description="Exact decimal number of USD.", examples=["0.00125"])
    estimated_requests: int = Field(description="Calls whose tokens the backend did not report.")
    cached_requests: int = Field(description="Calls answered from the cache or by another's call, without tokens.")


class UsageRow(UsageNumbers):
    """Usage of one key and scenario on one UTC day."""

    date: datetime.date
    key: str = Field(description="Name of the key, never the key.")
    scenario: str


class UsageReport(BaseModel):
    """Usage of the caller's tenant on the days from `from` to `to`, both included."""

    object: Literal["usage"] = "usage"
    since: datetime.date = Field(alias="from")
    until: datetime.date = Field(alias="to")
    total: UsageNumbers
    data: list[UsageRow] = Field(description="Sorted by day, key and scenario; what was not used has no row.")
