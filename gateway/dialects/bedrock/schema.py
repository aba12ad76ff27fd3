"""Requests and answers of Converse, typed: of the requests what the gateway sends, of the answers what it looks at.

Every block has exactly one of its members. Data is base64 where it is JSON. Answers are decoded loosely: a block or an
event of a kind that is not here has none of the members, and is nothing.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and its data types
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Sent(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """Part of a request."""


class Data(_Sent, kw_only=True):
    """Base64, of at least one byte."""

    bytes: str


class Media(_Sent, kw_only=True):
    """An image or a sound."""

    format: str
    source: Data


class Document(_Sent, kw_only=True):
    """A document; its name is of letters, digits, single spaces, hyphens, parentheses and square brackets."""

    format: str
    name: str
    source: Data


class CachePoint(msgspec.Struct, rename="camel", kw_only=True):
    """What came before is to be cached."""

    type: Literal["default"] = "default"
    ttl: Literal["5m", "1h"] | msgspec.UnsetType = msgspec.UNSET


class ToolUse(_Sent, kw_only=True):
    """A call of a tool; ``input`` is a JSON object."""

    tool_use_id: str
    name: str
    input: msgspec.Raw


class ReasoningText(_Sent, kw_only=True):
    """Reasoning with its signature."""

    text: str
    signature: str | None = None


class Reasoning(_Sent, kw_only=True):
    """Reasoning that was told, to be sent back as it was."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class ResultBlock(_Sent, kw_only=True):
    """A piece of what a tool said."""

    text: str | None = None
    image: Media | None = None
    document: Document | None = None


class ToolResult(_Sent, kw_only=True):
    """What a tool said."""

    tool_use_id: str
    content: list[ResultBlock]
    status: Literal["success", "error"] | None = None


class Block(_Sent, kw_only=True):
    """A piece of a turn."""

    text: str | None = None
    image: Media | None = None
    document: Document | None = None
    audio: Media | None = None
    tool_use: ToolUse | None = None
    tool_result: ToolResult | None = None
    reasoning_content: Reasoning | None = None
    cache_point: CachePoint | None = None


class Turn(_Sent, kw_only=True):
    """A turn; those of user and assistant alternate."""

    role: Literal["user", "assistant"]
    content: list[Block]


class InferenceConfig(_Sent, kw_only=True):
    """What every model takes."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None


class InputSchema(_Sent, kw_only=True):
    """A JSON Schema of an object."""

    json: msgspec.Raw


class ToolSpec(_Sent, kw_only=True):
    """A tool."""

    name: str
    description: str | None = None
    input_schema: InputSchema
    strict: bool | None = None


class Tool(_Sent, kw_only=True):
    """A tool, or the end of what is to be cached of them."""

    tool_spec: ToolSpec | None = None
    cache_point: CachePoint | None = None


class Nothing(msgspec.Struct):
    """An empty object."""


class NamedTool(_Sent, kw_only=True):
    """The tool that must be called."""

    name: str


class ToolChoice(_Sent, kw_only=True):
    """Whether a tool must be called."""

    auto: Nothing | None = None
    any: Nothing | None = None
    tool: NamedTool | None = None


class ToolConfig(_Sent, kw_only=True):
    """The tools, at least one."""

    tools: list[Tool]
    tool_choice: ToolChoice | None = None


class JsonSchema(_Sent, kw_only=True):
    """``schema`` is its JSON as a text."""

    schema: str
    name: str | None = None
    description: str | None = None


class TextStructure(_Sent, kw_only=True):
    """What the text of the answer must be."""

    json_schema: JsonSchema


class TextFormat(msgspec.Struct, rename="camel", kw_only=True):
    """The answer is JSON of a schema."""

    structure: TextStructure
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(_Sent, kw_only=True):
    """How to answer."""

    text_format: TextFormat | None = None
    effort: str | None = None


class Guardrail(_Sent, kw_only=True):
    """What looks at the request and at the answer."""

    guardrail_identifier: str
    guardrail_version: str


class Request(_Sent, kw_only=True):
    """A request of either operation."""

    messages: list[Turn]
    system: list[Block] | None = None
    inference_config: InferenceConfig | None = None
    tool_config: ToolConfig | None = None
    output_config: OutputConfig | None = None
    guardrail_config: Guardrail | None = None
    additional_model_request_fields: dict[str, msgspec.Raw] | None = None
    additional_model_response_field_paths: list[str] | None = None


# What comes back


class _Told(msgspec.Struct, rename="camel", kw_only=True):
    """Part of an answer."""


class ToldReasoningText(_Told, kw_only=True):
    """Reasoning."""

    text: str = ""
    signature: str | None = None


class ToldReasoning(_Told, kw_only=True):
    """Reasoning."""

    reasoning_text: ToldReasoningText | None = None
    redacted_content: str | None = None


class ToldToolUse(_Told, kw_only=True):
    """A call; one of type ``server_tool_use`` is not the caller's to make."""

    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    type: str | None = None


class ToldText(_Told, kw_only=True):
    """A piece of text of an answer with citations."""

    text: str | None = None


class ToldCited(_Told, kw_only=True):
    """Text with where it is from, which is not told on."""

    content: list[ToldText] = []


class ToldBlock(_Told, kw_only=True):
    """A piece of an answer."""

    text: str | None = None
    tool_use: ToldToolUse | None = None
    reasoning_content: ToldReasoning | None = None
    citations_content: ToldCited | None = None


class ToldMessage(_Told, kw_only=True):
    """The answer."""

    content: list[ToldBlock] = []


class Output(_Told, kw_only=True):
    """What holds it."""

    message: ToldMessage


class TokenUsage(_Told, kw_only=True):
    """``input_tokens`` are those that were neither read from a cache nor written to one.

    Source: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class ModelFields(msgspec.Struct, kw_only=True):
    """What was asked for of the model's own answer: the stop sequence that ended it."""

    stop_sequence: str | None = None


class Answer(_Told, kw_only=True):
    """A whole answer."""

    output: Output
    stop_reason: str
    additional_model_response_fields: ModelFields | None = None
    usage: TokenUsage | None = None


class BlockStart(_Told, kw_only=True):
    """What a block begins with; those of text and of reasoning begin without."""

    tool_use: ToldToolUse | None = None


class ContentBlockStart(_Told, kw_only=True):
    """An event: a block begins."""

    start: BlockStart
    content_block_index: int = 0


class ToolUseDelta(_Told, kw_only=True):
    """A piece of the JSON of a call's input."""

    input: str = ""


class ReasoningDelta(_Told, kw_only=True):
    """A piece of reasoning."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Delta(_Told, kw_only=True):
    """A piece of a block."""

    text: str | None = None
    tool_use: ToolUseDelta | None = None
    reasoning_content: ReasoningDelta | None = None


class ContentBlockDelta(_Told, kw_only=True):
    """An event: a block goes on."""

    delta: Delta
    content_block_index: int = 0


class ContentBlockStop(_Told, kw_only=True):
    """An event: a block is complete."""

    content_block_index: int = 0


class MessageStop(_Told, kw_only=True):
    """An event: the answer is complete."""

    stop_reason: str
    additional_model_response_fields: ModelFields | None = None


class Metadata(_Told, kw_only=True):
    """The last event."""

    usage: TokenUsage | None = None


class Failure(_Told, kw_only=True):
    """An error; some services write its text with a capital."""

    message: str | None = None
    text: str | None = msgspec.field(default=None, name="Message")


encode_request = msgspec.json.Encoder().encode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_block_start = msgspec.json.Decoder(ContentBlockStart).decode
decode_delta = msgspec.json.Decoder(ContentBlockDelta).decode
decode_block_stop = msgspec.json.Decoder(ContentBlockStop).decode
decode_stop = msgspec.json.Decoder(MessageStop).decode
decode_metadata = msgspec.json.Decoder(Metadata).decode
decode_failure = msgspec.json.Decoder(Failure).decode
