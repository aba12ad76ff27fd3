"""The one form that every dialect is translated to and from: a chat completion, typed.

It is the dialect of OpenAI Chat Completions with what other dialects can say besides, in the names that servers and
clients of that dialect have given it: ``reasoning_content`` (DeepSeek, vLLM), ``thinking_blocks`` and ``cache_control``
(Anthropic), ``extra_content`` (Gemini's thought signatures). So a client of Chat Completions can say all of it too, and
no translation needs a second form.

Requests are decoded strictly: what has no place here is an error that names it, and is never silently lost. Answers are
decoded loosely: a backend may always say more.

Sources: https://platform.openai.com/docs/api-reference/chat,
https://docs.anthropic.com/en/api/messages (thinking blocks, ``cache_control``),
https://ai.google.dev/gemini-api/docs/thought-signatures (``extra_content``).
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Unset = UnsetType


class _Said(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Part of a request."""


class Text(_Said, tag_field="type", tag="text", kw_only=True):
    """Text, maybe the end of what the backend is to cache."""

    text: str
    cache_control: msgspec.Raw | Unset = UNSET


class ImageUrl(_Said, kw_only=True):
    """An ``https:`` or ``data:`` URL."""

    url: str
    detail: str | None = None


class Image(_Said, tag_field="type", tag="image_url", kw_only=True):
    """An image."""

    image_url: ImageUrl
    cache_control: msgspec.Raw | Unset = UNSET


class AudioData(_Said, kw_only=True):
    """Base64 data; ``format`` is ``wav`` or ``mp3`` with OpenAI."""

    data: str
    format: str


class Audio(_Said, tag_field="type", tag="input_audio", kw_only=True):
    """Sound."""

    input_audio: AudioData


class FileData(_Said, kw_only=True):
    """A file: a ``data:`` URL, or the id that its provider gave it."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class File(_Said, tag_field="type", tag="file", kw_only=True):
    """A document, such as a PDF."""

    file: FileData
    cache_control: msgspec.Raw | Unset = UNSET


class Refusal(_Said, tag_field="type", tag="refusal", kw_only=True):
    """What the assistant said instead of an answer."""

    refusal: str


Part = Text | Image | Audio | File | Refusal


class Thinking(_Said, tag_field="type", tag="thinking", kw_only=True):
    """Reasoning, with the signature by which its provider knows it again."""

    thinking: str
    signature: str = ""
    index: int | Unset = UNSET  # in a stream, its place among the blocks; clients send it back


class RedactedThinking(_Said, tag_field="type", tag="redacted_thinking", kw_only=True):
    """Reasoning that only its provider can read."""

    data: str
    index: int | Unset = UNSET


ThinkingBlock = Thinking | RedactedThinking


class Function(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A call; ``arguments`` are JSON as the model wrote it, which may be none."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A function that the assistant wants called. ``index`` is its place in a stream; clients send it back."""

    id: str
    function: Function
    type: Literal["function"] = "function"
    index: int | Unset = UNSET
    extra_content: msgspec.Raw | Unset = UNSET


class Message(_Said, kw_only=True):
    """One message. ``is_error`` says of a tool's result that the tool failed."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    is_error: bool = False
    cache_control: msgspec.Raw | Unset = UNSET
    annotations: msgspec.Raw | Unset = UNSET  # clients send an answer back as they got it; says nothing to a model
    audio: msgspec.Raw | Unset = UNSET
    function_call: msgspec.Raw | Unset = UNSET
    extra_content: msgspec.Raw | Unset = UNSET


class FunctionSpec(_Said, kw_only=True):
    """What a function is called with: ``parameters`` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw | Unset = UNSET
    strict: bool | None = None


class Tool(msgspec.Struct, omit_defaults=False, forbid_unknown_fields=True, kw_only=True):
    """A function that the model may call."""

    function: FunctionSpec
    type: Literal["function"] = "function"
    cache_control: msgspec.Raw | Unset = UNSET


class Named(_Said, kw_only=True):
    """A function by its name."""

    name: str


class NamedChoice(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The function that must be called."""

    function: Named
    type: Literal["function"] = "function"


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


class SchemaFormat(_Said, kw_only=True):
    """The schema of an answer."""

    name: str
    description: str | None = None
    schema: msgspec.Raw | Unset = UNSET
    strict: bool | None = None


class AnswerFormat(_Said, kw_only=True):
    """``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


# What comes back


class _Told(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Part of an answer."""


class InputDetails(_Told, kw_only=True):
    """Of the input tokens: read from a cache, and written to one."""

    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None


class OutputDetails(_Told, kw_only=True):
    """Of the output tokens."""

    reasoning_tokens: int | None = None


class UsageForm(msgspec.Struct, kw_only=True):
    """``usage``: ``prompt_tokens`` counts all input, whatever of it was cached."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: InputDetails | Unset | None = UNSET
    completion_tokens_details: OutputDetails | Unset | None = UNSET


class ToldFunction(msgspec.Struct, kw_only=True):
    """A call, or a piece of one."""

    name: str | Unset | None = UNSET
    arguments: str | Unset | None = UNSET


class ToldCall(msgspec.Struct, kw_only=True):
    """A call, or in a stream a piece of the one at ``index``: id and name come first, then arguments."""

    index: int | Unset | None = UNSET
    id: str | Unset | None = UNSET
    type: str | Unset | None = UNSET
    function: ToldFunction | Unset | None = UNSET
    extra_content: msgspec.Raw | Unset = UNSET


class Told(msgspec.Struct, kw_only=True):
    """A message of an answer, or a piece of one (``delta``).

    A piece of ``thinking_blocks`` is one block: its text as it comes, then its signature with an empty text; a redacted
    one whole.
    """

    role: str | Unset | None = UNSET
    content: str | Unset | None = UNSET
    refusal: str | Unset | None = UNSET
    reasoning_content: str | Unset | None = UNSET
    reasoning: str | Unset | None = UNSET  # the same, as newer vLLM and OpenRouter name it
    thinking_blocks: list[ThinkingBlock] | Unset | None = UNSET
    tool_calls: list[ToldCall] | Unset | None = UNSET
    annotations: msgspec.Raw | Unset = UNSET
    extra_content: msgspec.Raw | Unset = UNSET


class Choice(msgspec.Struct, kw_only=True):
    """One answer; a whole one has a ``message``, a piece of a stream a ``delta``.

    ``finish_reason``: stop, length, tool_calls, content_filter. ``stop_sequence`` is the one that ended it,
    which vLLM calls ``stop_reason``.
    """

    index: int = 0
    message: Told | Unset | None = UNSET
    delta: Told | Unset | None = UNSET
    logprobs: msgspec.Raw | Unset = UNSET
    finish_reason: str | None = None
    stop_sequence: str | Unset | None = UNSET
    stop_reason: str | int | Unset | None = UNSET


class Completion(msgspec.Struct, kw_only=True):
    """A chat completion, or an event of a streamed one."""

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: list[Choice] = []
    usage: UsageForm | Unset | None = UNSET
    service_tier: str | Unset | None = UNSET
    system_fingerprint: str | Unset | None = UNSET


NULL = msgspec.Raw(b"null")
CHUNK = "chat.completion.chunk"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode
decode_messages = msgspec.json.Decoder(list[Message]).decode
decode_tools = msgspec.json.Decoder(list[Tool]).decode
decode_tool_choice = msgspec.json.Decoder(ToolChoice).decode
decode_answer_format = msgspec.json.Decoder(AnswerFormat).decode
decode_completion = msgspec.json.Decoder(Completion).decode


def given(raw: msgspec.Raw | Unset) -> msgspec.Raw | Unset:
    """A value that is kept raw; unset where it is null, which says the same."""
    return UNSET if raw is UNSET or raw == NULL else raw


def encode_completion(completion: Completion) -> bytes:
    """The body of an answer."""
    return _encode(completion)


def encode_event(completion: Completion) -> bytes:
    """An event of a streamed answer."""
    return b"data: " + _encode(completion) + b"\n\n"
