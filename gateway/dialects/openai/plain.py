"""A chat request that was made of another dialect, as servers of the chat dialect take it: pure.

The common form can say more than their schema allows. Invariant: what a model is to read is sent all the same.

- Marks of what is to be cached are left out: these servers cache by themselves.
- Images and documents that a tool showed follow its result as the user's, since a tool's message holds text alone.
- The result of a tool that failed says so in its text.
- Reasoning that is signed is its provider's own and left out. What is not came from a server of this dialect, and goes
  back under the name that it came by, unless ``reasoning_content`` is among the backend's unsupported fields.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import UNSET

from gateway.dialects import form
from gateway.model import Backend

Fields = Mapping[str, msgspec.Raw | bytes]

_REASONING = "reasoning_content"
_FAILED = "Error: "

_encode = msgspec.json.Encoder().encode
# Keys, by the quotes around them, which no text inside a JSON string can imitate.
_says_more = re.compile(rb'"(?:cache_control|is_error|thinking_blocks|reasoning_content)"|"role"\s*:\s*"tool"').search


def plain(fields: Fields, made: Fields, backend: Backend) -> Fields:
    """The fields to send to ``backend``; ``made`` are those that were made of the other dialect."""
    sent: dict[str, msgspec.Raw | bytes] = dict(fields)
    messages = fields.get("messages")
    if messages is not None and _says_more(messages):
        keeps_reasoning = _REASONING not in backend.unsupported_fields
        said = _plain_messages(form.decode_messages(messages), keeps_reasoning=keeps_reasoning)
        sent["messages"] = _encode(list(said))
    tools = fields.get("tools")
    if tools is not None and tools is made.get("tools") and b'"cache_control"' in bytes(tools):
        sent["tools"] = _encode(
            [msgspec.structs.replace(tool, cache_control=UNSET) for tool in form.decode_tools(tools)]
        )
    return sent


def _plain_messages(messages: Sequence[form.Message], *, keeps_reasoning: bool) -> Iterator[form.Message]:
    shown: list[form.Part] = []
    for message in messages:
        if shown and message.role != "tool":
            yield form.Message(role="user", content=shown)
            shown = []
        if message.role == "tool":
            shown += _move_shown(message)
        _strip(message, keeps_reasoning=keeps_reasoning)
        yield message
    if shown:
        yield form.Message(role="user", content=shown)


def _move_shown(message: form.Message) -> list[form.Part]:
    """What a tool's message cannot hold, taken out of it; and what came of the tool, said in its text."""
    moved: list[form.Part] = []
    if isinstance(message.content, list):
        texts = [part for part in message.content if isinstance(part, form.Text)]
        moved = [part for part in message.content if not isinstance(part, form.Text)]
        message.content = "\n".join(part.text for part in texts)
        if moved and not message.content:
            message.content = "(shown below)"
    if message.is_error:
        message.is_error = False
        text = message.content or ""
        message.content = text if text.lower().startswith("error") else _FAILED + text
    for part in moved:
        if isinstance(part, form.Image | form.File):
            part.cache_control = UNSET
    return moved


def _strip(message: form.Message, *, keeps_reasoning: bool) -> None:
    message.cache_control = UNSET
    if message.thinking_blocks is not None:
        unsigned = [
            block.thinking
            for block in message.thinking_blocks
            if isinstance(block, form.Thinking) and not block.signature
        ]
        message.thinking_blocks = None
        message.reasoning_content = message.reasoning_content or "\n\n".join(unsigned) or None
    if not keeps_reasoning:
        message.reasoning_content = None
    for part in message.content if isinstance(message.content, list) else ():
        if isinstance(part, form.Text | form.Image | form.File):
            part.cache_control = UNSET
