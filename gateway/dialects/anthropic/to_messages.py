"""The conversation of a chat as one of Messages; pure.

Invariants:
- Instructions (``system``, ``developer``), wherever they stand, are the system prompt, in their order: not every model
  takes them in between.
- Messages of one side that follow each other are one turn, so that results of parallel calls come back together.
- Blocks that say nothing are left out: the API refuses them. A turn of the user that says nothing is refused.

Reasoning goes back as it was signed. What has no signature (``reasoning_content``, or the reasoning of another
provider's model) cannot be told, and says nothing to a model that did not think it.

Source: https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/extended-thinking
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.media import document_block, image_block
from gateway.dialects.ask import Ask
from gateway.errors import InvalidRequest

Shown = schema.TextBlock | schema.ImageBlock | schema.DocumentBlock

_EMPTY_INPUT = msgspec.Raw(b"{}")
_NOT_OF_IDS = re.compile(r"[^A-Za-z0-9_-]")
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Conversation(NamedTuple):
    """``tools`` are the names of those that were called in it, in order."""

    system: list[schema.TextBlock]
    turns: list[schema.Turn]
    tools: list[str]
    is_thought_through: bool
    """Whether every call since the user last spoke was made with reasoning that can be sent back."""


def conversation_of(messages: Sequence[form.Message], ask: Ask) -> Conversation:
    """The conversation. Raises InvalidRequest, naming the place of what cannot be told."""
    writer = _Writer(ask)
    for position, message in enumerate(messages):
        writer.add(message, f"messages[{position}]")
    return Conversation(writer.system, writer.turns, list(dict.fromkeys(writer.tools)), writer.is_thought_through)


class _Writer:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.system: list[schema.TextBlock] = []
        self.turns: list[schema.Turn] = []
        self.tools: list[str] = []
        self.is_thought_through = True

    def add(self, message: form.Message, place: str) -> None:
        """One more message."""
        if message.name:
            self._ask.cannot(f"{place}.name")
        if message.role in ("system", "developer"):
            self.system += self._instructions(message, place)
        elif message.role == "assistant":
            self._say("assistant", self._answer(message, place))
        elif message.role == "tool":
            self._say("user", [self._result(message, place)])
        else:
            said = self._shown(message, place)
            if not said:
                field = f"{place}.content"
                raise InvalidRequest(f"`{field}` must not be empty with this model.", param=field)
            self.is_thought_through = True
            _mark(said, message)
            self._say("user", [*said])

    def _say(self, role: str, blocks: list[schema.Block]) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1].role == role:
            content = self.turns[-1].content
            assert isinstance(content, list), "as it was made below"
            content += blocks
        else:
            self.turns.append(schema.Turn(role="assistant" if role == "assistant" else "user", content=blocks))

    def _instructions(self, message: form.Message, place: str) -> list[schema.TextBlock]:
        texts: list[schema.TextBlock] = []
        for block in self._shown(message, place):
            if isinstance(block, schema.TextBlock):
                texts.append(block)
            else:
                self._ask.cannot(f"{place}.content", "instructions are text")
        _mark(texts, message)
        return texts

    def _answer(self, message: form.Message, place: str) -> list[schema.Block]:
        blocks: list[schema.Block] = []
        for thought in message.thinking_blocks or ():
            if isinstance(thought, form.RedactedThinking):
                blocks.append(schema.RedactedThinkingBlock(data=thought.data))
            elif thought.signature:
                blocks.append(schema.ThinkingBlock(thinking=thought.thinking, signature=thought.signature))
        if message.tool_calls and not blocks:
            self.is_thought_through = False
        blocks += self._shown(message, place)
        if message.refusal:
            blocks.append(schema.TextBlock(text=message.refusal))
        for position, call in enumerate(message.tool_calls or ()):
            blocks.append(self._call(call, f"{place}.tool_calls[{position}]"))
        for name in ("audio", "function_call"):
            if form.given(getattr(message, name)) is not UNSET:
                self._ask.cannot(f"{place}.{name}")
        _mark(blocks, message)
        return blocks

    def _call(self, call: form.ToolCall, place: str) -> schema.ToolUseBlock:
        self.tools.append(call.function.name)
        arguments = call.function.arguments.strip()
        try:
            given = msgspec.Raw(arguments.encode()) if arguments else _EMPTY_INPUT
            _decode_object(given)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            field = f"{place}.function.arguments"
            raise InvalidRequest(f"`{field}` must be a JSON object.", param=field) from None
        return schema.ToolUseBlock(id=_id(call.id), name=call.function.name, input=given)

    def _result(self, message: form.Message, place: str) -> schema.ToolResultBlock:
        if not message.tool_call_id:
            field = f"{place}.tool_call_id"
            raise InvalidRequest(f"`{field}` is required.", code="missing_field", param=field)
        said = self._shown(message, place)
        plain = (
            said[0].text if len(said) == 1 and isinstance(said[0], schema.TextBlock) and not _marked(said[0]) else ""
        )
        result = schema.ToolResultBlock(
            tool_use_id=_id(message.tool_call_id), content=plain or [*said] or None, is_error=message.is_error
        )
        _mark([result], message)
        return result

    def _shown(self, message: form.Message, place: str) -> list[Shown]:
        """The parts of what a message says."""
        content = message.content
        if isinstance(content, str):
            content = [form.Text(text=content)]
        shown: list[Shown] = []
        for position, part in enumerate(content or ()):
            block = self._block(part, f"{place}.content[{position}]")
            if block is not None:
                shown.append(block)
        return shown

    def _block(self, part: form.Part, place: str) -> Shown | None:
        if isinstance(part, form.Text):
            if not part.text.strip():
                return None
            return schema.TextBlock(text=part.text, cache_control=form.given(part.cache_control))
        if isinstance(part, form.Image):
            return image_block(part, place)
        if isinstance(part, form.Refusal):
            return schema.TextBlock(text=part.refusal) if part.refusal.strip() else None
        if isinstance(part, form.File):
            if part.file.file_data:
                return document_block(part, place)
            self._ask.cannot(f"{place}.file.file_id", "files of the provider's own store are nobody's here")
        else:
            self._ask.cannot(f"{place}.input_audio")
        return None


def _mark(blocks: Sequence[schema.Block], message: form.Message) -> None:
    """Put the marker of a message on the last of its blocks; reasoning cannot have one."""
    marker = form.given(message.cache_control)
    if (
        marker is not UNSET
        and blocks
        and not isinstance(blocks[-1], schema.ThinkingBlock | schema.RedactedThinkingBlock)
    ):
        blocks[-1].cache_control = marker


def _marked(block: schema.TextBlock) -> bool:
    return block.cache_control is not UNSET


def _id(given: str) -> str:
    """The id of a call in the letters that the API takes."""
    return _NOT_OF_IDS.sub("_", given)
