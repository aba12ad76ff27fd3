"""A chat request as a request of Converse.

What the dialects say differently:
- Instructions stand before the conversation, wherever in it the caller put them.
- Turns of user and assistant alternate: those of one side that follow each other become one, and results of tools are
  part of the user's turn.
- Text that is empty is nothing; the service refuses it.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import quote

import msgspec

from gateway.dialects import form
from gateway.dialects.ask import Ask
from gateway.dialects.bedrock import schema
from gateway.dialects.bedrock.blocks import Blocks, tool_use_id
from gateway.dialects.contract import Outgoing
from gateway.errors import InvalidRequest
from gateway.model import BedrockOptions

_EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')
_INSTRUCTS = frozenset({"system", "developer"})
_STOP_SEQUENCE = ["/stop_sequence"]  # which of them it was; of models that do not say it is ignored
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_is_tool_name = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_decode_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def write_request(ask: Ask) -> Outgoing:
    """The request to send. Raises InvalidRequest for what cannot be said."""
    chat = _Conversation(ask)
    chat.read()
    options = ask.backend.bedrock or BedrockOptions()
    stops = [each for each in ask.stop() if each]
    request = schema.Request(
        messages=chat.turns,
        system=chat.system or None,
        inference_config=_inference_config(ask, stops),
        tool_config=_tool_config(ask, chat),
        output_config=_output_config(ask),
        guardrail_config=_guardrail(options),
        additional_model_request_fields=_model_fields(ask, options),
        additional_model_response_field_paths=_STOP_SEQUENCE if stops else None,
    )
    operation = "converse-stream" if ask.request.stream else "converse"
    return Outgoing(
        path=f"/model/{quote(ask.model, safe='')}/{operation}",
        body=schema.encode_request(request),
        dropped=ask.done(),
    )


class _Conversation:
    """The messages, as they become turns."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.blocks = Blocks(ask)
        self.system: list[schema.Block] = []
        self.turns: list[schema.Turn] = []
        self.uses_tools = False

    def read(self) -> None:
        """Take the messages of the request. Raises InvalidRequest."""
        for index, message in enumerate(self._ask.messages()):
            place = f"messages[{index}]"
            self._refuse(message, place)
            if message.role == "assistant":
                blocks = self._said(message, place)
            elif message.role == "tool":
                blocks = self._result(message, place)
            else:
                blocks = self._content(message, place, texts_only=message.role in _INSTRUCTS)
            self._mark(blocks, message.cache_control, place)
            self._say(message.role, blocks)

    def _say(self, speaker: str, blocks: list[schema.Block]) -> None:
        role: Literal["user", "assistant"] = "assistant" if speaker == "assistant" else "user"
        if speaker in _INSTRUCTS:
            self.system += blocks
        elif blocks and self.turns and self.turns[-1].role == role:
            self.turns[-1].content += blocks
        elif blocks:
            self.turns.append(schema.Turn(role=role, content=blocks))

    def _refuse(self, message: form.Message, place: str) -> None:
        """What no turn has a place for."""
        if message.name is not None and message.role != "tool":  # of a tool's result it says nothing that is not known
            self._ask.cannot(f"{place}.name")
        for name in ("audio", "function_call"):
            given = getattr(message, name)
            if isinstance(given, msgspec.Raw) and bytes(given) != b"null":
                self._ask.cannot(f"{place}.{name}")

    def _content(self, message: form.Message, place: str, *, texts_only: bool = False) -> list[schema.Block]:
        if isinstance(message.content, str):
            return [schema.Block(text=message.content)] if message.content else []
        blocks: list[schema.Block] = []
        for index, part in enumerate(message.content or ()):
            at = f"{place}.content[{index}]"
            if texts_only and not isinstance(part, form.Text):
                self._ask.cannot(at, "instructions are text")
                continue
            block = self.blocks.of_part(part, at)
            if block is not None:
                blocks.append(block)
            self._mark(blocks, getattr(part, "cache_control", None), at)
        return blocks

    def _mark(self, blocks: list[schema.Block], marker: object, place: str) -> None:
        point = self.blocks.cache_point(marker, place)
        if point is not None and blocks:
            blocks.append(schema.Block(cache_point=point))

    def _said(self, message: form.Message, place: str) -> list[schema.Block]:
        """A turn of the assistant: what it thought, what it said, what it called."""
        blocks = [schema.Block(reasoning_content=_reasoning(block)) for block in message.thinking_blocks or ()]
        blocks += self._content(message, place)
        if message.refusal:
            blocks.append(schema.Block(text=message.refusal))
        for index, call in enumerate(message.tool_calls or ()):
            self.uses_tools = True
            blocks.append(schema.Block(tool_use=_tool_use(call, f"{place}.tool_calls[{index}]")))
        return blocks

    def _result(self, message: form.Message, place: str) -> list[schema.Block]:
        """What a tool said. A mark of a cache stands beside the result, not in it."""
        self.uses_tools = True
        if not message.tool_call_id:
            raise InvalidRequest(f"`{place}.tool_call_id` is required.", param=f"{place}.tool_call_id")
        marks: list[schema.Block] = []
        said: list[schema.ResultBlock] = []
        for block in self._content(message, place):
            if block.cache_point is not None:
                marks = [block]
            elif block.audio is not None:
                self._ask.cannot(f"{place}.content", "a tool cannot answer with sound")
            else:
                said.append(schema.ResultBlock(text=block.text, image=block.image, document=block.document))
        result = schema.ToolResult(
            tool_use_id=tool_use_id(message.tool_call_id),
            content=said,
            status="error" if message.is_error else None,
        )
        return [schema.Block(tool_result=result), *marks]


def _reasoning(block: form.ThinkingBlock) -> schema.Reasoning:
    if isinstance(block, form.RedactedThinking):
        return schema.Reasoning(redacted_content=block.data)
    text = schema.ReasoningText(text=block.thinking, signature=block.signature or None)
    return schema.Reasoning(reasoning_text=text)


def _tool_use(call: form.ToolCall, place: str) -> schema.ToolUse:
    arguments = call.function.arguments.strip() or "{}"
    try:
        _decode_arguments(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise InvalidRequest(
            f"`{place}.function.arguments` must be a JSON object.", param=f"{place}.function.arguments"
        ) from None
    return schema.ToolUse(tool_use_id=tool_use_id(call.id), name=call.function.name, input=msgspec.Raw(arguments))


def _inference_config(ask: Ask, stops: list[str]) -> schema.InferenceConfig | None:
    config = schema.InferenceConfig(
        max_tokens=ask.max_tokens,
        temperature=_up_to_one(ask, "temperature"),
        top_p=_up_to_one(ask, "top_p"),
        stop_sequences=stops or None,
    )
    return None if config == schema.InferenceConfig() else config


def _up_to_one(ask: Ask, name: str) -> float | None:
    number = ask.number(name)
    if number is not None and not 0 <= number <= 1:
        ask.cannot(name, "it must be between 0 and 1")
        return None
    return number


def _tool_config(ask: Ask, chat: _Conversation) -> schema.ToolConfig | None:
    """The tools. ``none`` has no counterpart: they are left out, where nothing in the conversation needs them."""
    tools = ask.tools()
    choice = ask.tool_choice()
    if ask.boolean("parallel_tool_calls") is False and tools:
        ask.cannot("parallel_tool_calls", "it may always call several tools")
    if not tools:
        return None
    if choice == "none":
        if not chat.uses_tools:
            return None
        ask.cannot("tool_choice", "`none` cannot follow calls of tools")
        choice = None
    return schema.ToolConfig(
        tools=[each for index, tool in enumerate(tools) for each in _tool(chat.blocks, tool, f"tools[{index}]")],
        tool_choice=_tool_choice(choice),
    )


def _tool(blocks: Blocks, tool: form.Tool, place: str) -> Iterator[schema.Tool]:
    """A tool, and whether all up to it are to be cached. Raises InvalidRequest."""
    function = tool.function
    if not _is_tool_name(function.name):
        raise InvalidRequest(
            f"`{place}.function.name` must be of 1 to 64 letters, digits, `_` and `-`.",
            param=f"{place}.function.name",
        )
    parameters = function.parameters
    given = isinstance(parameters, msgspec.Raw) and bytes(parameters) != b"null"
    yield schema.Tool(
        tool_spec=schema.ToolSpec(
            name=function.name,
            description=function.description or None,
            input_schema=schema.InputSchema(json=parameters if given else _EMPTY_SCHEMA),  # type: ignore[arg-type]
            strict=function.strict or None,
        )
    )
    point = blocks.cache_point(tool.cache_control, place)
    if point is not None:
        yield schema.Tool(cache_point=point)


def _tool_choice(choice: form.ToolChoice | None) -> schema.ToolChoice | None:
    match choice:
        case None:
            return None
        case form.NamedChoice():
            return schema.ToolChoice(tool=schema.NamedTool(name=choice.function.name))
        case "required":
            return schema.ToolChoice(any=schema.Nothing())
        case _:
            return schema.ToolChoice(auto=schema.Nothing())


def _output_config(ask: Ask) -> schema.OutputConfig | None:
    effort = ask.text("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        ask.cannot("reasoning_effort", "it must be low, medium, high, xhigh or max")
        effort = None
    wanted = ask.answer_format()
    text_format: schema.TextFormat | None = None
    if wanted is not None and wanted.type == "json_object":
        ask.cannot("response_format", "json_object is not known, json_schema is")
    if wanted is not None and wanted.type == "json_schema":
        text_format = _text_format(wanted)
    return schema.OutputConfig(text_format=text_format, effort=effort) if text_format or effort else None


def _text_format(wanted: form.AnswerFormat) -> schema.TextFormat:
    described = wanted.json_schema
    text = b"" if described is None or not isinstance(described.schema, msgspec.Raw) else bytes(described.schema)
    if described is None or text in (b"", b"null"):
        raise InvalidRequest("`response_format.json_schema.schema` is required.", param="response_format")
    return schema.TextFormat(
        structure=schema.TextStructure(
            json_schema=schema.JsonSchema(
                schema=text.decode(), name=described.name, description=described.description or None
            )
        )
    )


def _guardrail(options: BedrockOptions) -> schema.Guardrail | None:
    if options.guardrail is None:
        return None
    identifier, version = options.guardrail
    return schema.Guardrail(guardrail_identifier=identifier, guardrail_version=version)


def _model_fields(ask: Ask, options: BedrockOptions) -> dict[str, msgspec.Raw] | None:
    """What the registry says that the model takes beyond Converse, as it was given."""
    fields: dict[str, msgspec.Raw] = {}
    for name in options.model_fields:
        given = ask.take(name, msgspec.Raw, "JSON")
        if given is not None:
            fields[name] = given
    return fields or None
