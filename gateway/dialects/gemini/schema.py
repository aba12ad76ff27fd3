"""What is sent to Gemini and what comes back, typed. Field names are those of its JSON.

What is sent holds nothing that its reference does not have; what comes back is decoded loosely: it may always say more.
"""

from __future__ import annotations

from typing import Literal

import msgspec

RawJson = msgspec.Raw | bytes


class _Sent(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Part of a request."""


class Blob(_Sent, kw_only=True):
    """Base64 data."""

    mime_type: str
    data: str


class FileData(_Sent, kw_only=True):
    """Data that the provider fetches itself."""

    file_uri: str
    mime_type: str | None = None


class SentCall(_Sent, kw_only=True):
    """A function call that the model made; ``args`` is a JSON object."""

    name: str
    args: msgspec.Raw
    id: str | None = None


class ResultPart(_Sent, kw_only=True):
    """An image or document in the result of a function."""

    inline_data: Blob | None = None
    file_data: FileData | None = None


class FunctionResponse(_Sent, kw_only=True):
    """The result of a function; ``response`` is a JSON object."""

    name: str
    response: msgspec.Raw | dict[str, str]
    id: str | None = None
    parts: list[ResultPart] | None = None


class SentPart(_Sent, kw_only=True):
    """One of its kinds, maybe with the signature of the thought that led to it."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: SentCall | None = None
    function_response: FunctionResponse | None = None
    thought_signature: str | None = None


class Content(_Sent, kw_only=True):
    """A turn; the system instruction has no role."""

    parts: list[SentPart]
    role: Literal["user", "model"] | None = None


class Declaration(_Sent, kw_only=True):
    """A function that may be called. The schema of its parameters is JSON Schema as it is."""

    name: str
    description: str | None = None
    parameters_json_schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Tool(_Sent, kw_only=True):
    """All functions."""

    function_declarations: list[Declaration]


Mode = Literal["AUTO", "ANY", "NONE", "VALIDATED"]


class CallingConfig(_Sent, kw_only=True):
    """Whether functions must be called, and which."""

    mode: Mode
    allowed_function_names: list[str] | None = None


class ToolConfig(_Sent, kw_only=True):
    """The choice among the tools."""

    function_calling_config: CallingConfig


class ThinkingConfig(_Sent, kw_only=True):
    """How much is thought, and whether it is told."""

    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(_Sent, kw_only=True):
    """How an answer is made."""

    candidate_count: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop_sequences: list[str] | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_json_schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    thinking_config: ThinkingConfig | None = None


class Request(_Sent, kw_only=True):
    """``generateContent``."""

    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None


encode_request = msgspec.json.Encoder().encode


# What comes back


class _Told(msgspec.Struct, rename="camel", kw_only=True):
    """Part of an answer."""


class ToldCall(_Told, kw_only=True):
    """A function call; ``args`` is a JSON object."""

    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None


class ToldPart(_Told, kw_only=True):
    """One of its kinds; of those that a chat completion has no place for, nothing."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: ToldCall | None = None


class ToldContent(_Told, kw_only=True):
    """A turn of the model."""

    parts: list[ToldPart] | None = None


class Token(_Told, kw_only=True):
    """A token and the logarithm of its probability."""

    token: str | None = None
    log_probability: float | None = None


class TopTokens(_Told, kw_only=True):
    """The likeliest tokens at one place."""

    candidates: list[Token] | None = None


class Logprobs(_Told, kw_only=True):
    """By place: what was chosen, and what was likely."""

    chosen_candidates: list[Token] | None = None
    top_candidates: list[TopTokens] | None = None


class Candidate(_Told, kw_only=True):
    """One answer, or a piece of it."""

    index: int | None = None
    content: ToldContent | None = None
    finish_reason: str | None = None
    logprobs_result: Logprobs | None = None


class UsageMetadata(_Told, kw_only=True):
    """Tokens so far. ``promptTokenCount`` has those that were cached; thoughts are beside the candidates' tokens."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


class PromptFeedback(_Told, kw_only=True):
    """Why there is no answer."""

    block_reason: str | None = None


class Detail(_Told, kw_only=True):
    """One of the details of an error: how long to wait (RetryInfo), or a reason (ErrorInfo)."""

    type: str = msgspec.field(default="", name="@type")
    reason: str | None = None
    retry_delay: str | None = None


class Error(_Told, kw_only=True):
    """``google.rpc.Status`` as JSON: https://cloud.google.com/apis/design/errors#http_mapping."""

    code: int | None = None
    message: str | None = None
    status: str | None = None
    details: list[Detail] | None = None


class Response(_Told, kw_only=True):
    """A whole answer, an event of a streamed one, or an error."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Error | None = None


decode_response = msgspec.json.Decoder(Response).decode
