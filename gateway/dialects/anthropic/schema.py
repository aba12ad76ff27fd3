"""Anthropic Messages, typed: requests, answers, events of streams, errors.

Requests are strict: what has no place here is an error that names it. Answers and events are loose: a backend may
always say more, and a block or an event of a kind that is not known has its ``type`` and nothing that matters.

Source: https://platform.claude.com/docs/en/api/messages, .../docs/en/build-with-claude/streaming and
.../docs/en/api/errors
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

Unset = UnsetType

# Requests


class _Said(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Part of a request."""


class Base64Source(_Said, tag_field="type", tag="base64", kw_only=True):
    """Data of an image (JPEG, PNG, GIF, WebP) or of a PDF."""

    media_type: str
    data: str


class UrlSource(_Said, tag_field="type", tag="url", kw_only=True):
    """What the provider fetches: an image or a PDF."""

    url: str


class TextSource(_Said, tag_field="type", tag="text", kw_only=True):
    """A document of plain text."""

    data: str
    media_type: Literal["text/plain"]


class FileSource(_Said, tag_field="type", tag="file", kw_only=True):
    """A file that the provider's account holds."""

    file_id: str


class ContentSource(_Said, tag_field="type", tag="content", kw_only=True):
    """A document of blocks: texts and images."""

    content: str | list[TextBlock | ImageBlock]


class TextBlock(_Said, tag_field="type", tag="text", kw_only=True):
    """Text, never empty; ``cache_control`` marks the end of what is to be cached."""

    text: str
    cache_control: msgspec.Raw | Unset = UNSET
    citations: msgspec.Raw | Unset = UNSET


class ImageBlock(_Said, tag_field="type", tag="image", kw_only=True):
    """An image."""

    source: Base64Source | UrlSource | FileSource
    cache_control: msgspec.Raw | Unset = UNSET


class DocumentBlock(_Said, tag_field="type", tag="document", kw_only=True):
    """A PDF or a text."""

    source: Base64Source | UrlSource | TextSource | FileSource | ContentSource
    title: str | None = None
    context: str | None = None
    citations: msgspec.Raw | Unset = UNSET
    cache_control: msgspec.Raw | Unset = UNSET


class ThinkingBlock(_Said, tag_field="type", tag="thinking", omit_defaults=False, kw_only=True):
    """Reasoning, to be sent back as it came."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Said, tag_field="type", tag="redacted_thinking", kw_only=True):
    """Reasoning that only the provider can read."""

    data: str


class ToolUseBlock(_Said, tag_field="type", tag="tool_use", kw_only=True):
    """A call of a tool; ``input`` is a JSON object."""

    id: str
    name: str
    input: msgspec.Raw
    cache_control: msgspec.Raw | Unset = UNSET
    caller: msgspec.Raw | Unset = UNSET  # of an answer that is sent back: who called, which says nothing to a model
    toolset_name: str | None = None


class SearchResultBlock(_Said, tag_field="type", tag="search_result", kw_only=True):
    """What a search found, for answers to cite."""

    source: str
    title: str
    content: list[TextBlock]
    citations: msgspec.Raw | Unset = UNSET
    cache_control: msgspec.Raw | Unset = UNSET


class ToolResultBlock(_Said, tag_field="type", tag="tool_result", kw_only=True):
    """What a tool said; results come first in the turn of the user that follows the calls."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock] | None = None
    is_error: bool | None = False
    cache_control: msgspec.Raw | Unset = UNSET
    toolset_name: str | None = None


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)

Role = Literal["user", "assistant", "system"]


class Turn(_Said, kw_only=True):
    """One of ``messages``. Newer models take instructions (``system``) in the middle of them, too."""

    role: Role
    content: str | list[Block]


class Tool(_Said, kw_only=True):
    """A tool of the caller's; ``input_schema`` is a JSON Schema of an object."""

    name: str
    input_schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None
    cache_control: msgspec.Raw | Unset = UNSET
    type: Literal["custom"] | None = None
    eager_input_streaming: bool | None = None
    defer_loading: Literal[False] | None = None


class AutoChoice(_Said, tag_field="type", tag="auto", kw_only=True):
    """The model decides whether to use tools."""

    disable_parallel_tool_use: bool = False


class AnyChoice(_Said, tag_field="type", tag="any", kw_only=True):
    """It must use one."""

    disable_parallel_tool_use: bool = False


class ToolChoice(_Said, tag_field="type", tag="tool", kw_only=True):
    """It must use this one."""

    name: str
    disable_parallel_tool_use: bool = False


class NoChoice(_Said, tag_field="type", tag="none", kw_only=True):
    """It must use none."""


Choice = AutoChoice | AnyChoice | ToolChoice | NoChoice

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class EnabledThinking(_Said, tag_field="type", tag="enabled", kw_only=True):
    """Reasoning of at most so many tokens (1024 to the output limit); of models before those that adapt."""

    budget_tokens: int
    display: str | None = None


class AdaptiveThinking(_Said, tag_field="type", tag="adaptive", kw_only=True):
    """The model decides how much to think."""

    display: str | None = None


class DisabledThinking(_Said, tag_field="type", tag="disabled", kw_only=True):
    """No reasoning."""


class BetweenToolsThinking(_Said, tag_field="type", tag="between_tools", kw_only=True):
    """Reasoning between calls of tools."""


ThinkingConfig = EnabledThinking | AdaptiveThinking | DisabledThinking | BetweenToolsThinking


class JsonFormat(_Said, tag_field="type", tag="json_schema", kw_only=True):
    """The schema of an answer."""

    schema: msgspec.Raw


class OutputConfig(_Said, kw_only=True):
    """How much effort to make, and the form of the answer."""

    effort: Effort | None = None
    format: JsonFormat | None = None


class RequestMetadata(_Said, kw_only=True):
    """For whom the request is made: an opaque id."""

    user_id: str | None = None


# Answers


class _Told(msgspec.Struct, kw_only=True):
    """Part of an answer."""


Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]  # far above any call; a larger figure is the backend's fault


class CacheCreation(_Told, omit_defaults=True, kw_only=True):
    """Of the tokens written to the cache: those that stay for five minutes, and for an hour."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class OutputDetails(_Told, omit_defaults=True, kw_only=True):
    """Of the output tokens."""

    thinking_tokens: Count | None = None


class Usage(_Told, kw_only=True):
    """``input_tokens`` are those that were neither read from the cache nor written to it.

    In a stream it comes with the start and with the end; figures are sums, and those that are left out stand.
    """

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | Unset | None = UNSET
    cache_creation_input_tokens: Count | Unset | None = UNSET
    cache_creation: CacheCreation | Unset | None = UNSET
    output_tokens_details: OutputDetails | Unset | None = UNSET
    service_tier: str | Unset | None = UNSET


class ToldBlock(_Told, kw_only=True):
    """A block of an answer, or the start of one in a stream.

    text: ``text``; thinking: ``thinking``, ``signature``; redacted_thinking: ``data``; tool_use: ``id``, ``name``,
    ``input``. Blocks of other kinds belong to tools that run at the provider.
    """

    type: str = ""
    text: str | Unset | None = UNSET
    thinking: str | Unset | None = UNSET
    signature: str | Unset | None = UNSET
    data: str | Unset | None = UNSET
    id: str | Unset | None = UNSET
    name: str | Unset | None = UNSET
    input: msgspec.Raw | Unset = UNSET


class StopDetails(_Told, kw_only=True):
    """Why an answer was refused."""

    explanation: str | None = None


StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"
]
"""Those that are known today. Read as any text."""


class Message(_Told, kw_only=True):
    """An answer; in a stream, the start of one."""

    id: str = ""
    type: str = "message"
    role: str = "assistant"
    model: str = ""
    content: list[ToldBlock] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | Unset | None = UNSET
    usage: Usage | None = None


class ErrorDetail(_Told, kw_only=True):
    """What went wrong."""

    type: str = ""
    message: str = ""


class ErrorBody(_Told, kw_only=True):
    """The body of an error, and the data of an event that tells of one."""

    error: ErrorDetail
    type: str = "error"
    request_id: str | Unset | None = UNSET


EVENT_TYPES = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
)
"""Of the events of a stream; each has its type as the name of the event, too. Others may come and are to be ignored."""

decode_message = msgspec.json.Decoder(Message).decode
decode_error = msgspec.json.Decoder(ErrorBody).decode
