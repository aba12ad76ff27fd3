"""The turns of a Messages request as messages of a chat request; pure.

Results of tools become messages of their own, before what else their turn says, as a chat has them. A document of
text, and what a search found, become text. What no chat can say is told to ``beyond`` by its place.

Source: https://platform.claude.com/docs/en/api/messages,
https://platform.openai.com/docs/api-reference/chat/create (``messages``)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.errors import InvalidRequest

Beyond = Callable[[str], None]
"""Is told the place of what a chat request has no place for."""

PDF = "application/pdf"
_PDF_NAME = "document.pdf"

Shown = schema.TextBlock | schema.ImageBlock | schema.DocumentBlock | schema.SearchResultBlock
"""What a user, or a tool, can show."""

NOTHING = schema.TextBlock(text="")
"""Stands where a block was that no chat can say, so that the others keep their places."""


def system_message(system: str | Sequence[schema.TextBlock]) -> form.Message | None:
    """The system prompt; None for an empty one."""
    if isinstance(system, str):
        return form.Message(role="system", content=system) if system else None
    return form.Message(role="system", content=_content([_text(block) for block in system])) if system else None


def messages_of(turns: Sequence[schema.Turn], beyond: Beyond) -> list[form.Message]:
    """The conversation. Raises InvalidRequest for a block that its role cannot say."""
    messages: list[form.Message] = []
    for position, turn in enumerate(turns):
        if isinstance(turn.content, str):
            messages.append(form.Message(role=turn.role, content=turn.content))
        elif turn.role == "assistant":
            messages.append(_assistant(turn.content, f"messages.{position}.content", beyond))
        else:
            messages += _user(turn.role, turn.content, f"messages.{position}.content", beyond)
    return messages


def _assistant(blocks: Sequence[schema.Block], place: str, beyond: Beyond) -> form.Message:
    said: list[form.Part] = []
    calls: list[form.ToolCall] = []
    thoughts: list[form.ThinkingBlock] = []
    mark: msgspec.Raw | schema.Unset = msgspec.UNSET
    for position, block in enumerate(blocks):
        if isinstance(block, schema.TextBlock):
            said += _parts(block, place, beyond)
        elif isinstance(block, schema.ToolUseBlock):
            called = form.Function(name=block.name, arguments=_object(block.input, f"{place}.{position}.input"))
            calls.append(form.ToolCall(id=block.id, function=called))
            mark = mark if block.cache_control is msgspec.UNSET else block.cache_control
        elif isinstance(block, schema.ThinkingBlock):
            thoughts.append(form.Thinking(thinking=block.thinking, signature=block.signature))
        elif isinstance(block, schema.RedactedThinkingBlock):
            thoughts.append(form.RedactedThinking(data=block.data))
        else:
            raise _misplaced(f"{place}.{position}", "assistant")
    return form.Message(
        role="assistant",
        content=_content(said) if said or not calls else None,
        tool_calls=calls or None,
        thinking_blocks=thoughts or None,
        cache_control=mark,
    )


def _user(role: schema.Role, blocks: Sequence[schema.Block], place: str, beyond: Beyond) -> Iterator[form.Message]:
    said: list[form.Part] = []
    results = 0
    for position, block in enumerate(blocks):
        where = f"{place}.{position}"
        if isinstance(block, Shown):
            said += _parts(block, where, beyond)
        elif isinstance(block, schema.ToolResultBlock) and role == "user":
            results += 1
            yield _result(block, where, beyond)
        else:
            raise _misplaced(where, role)
    if said or not results:
        yield form.Message(role=role, content=_content(said))


def _result(block: schema.ToolResultBlock, place: str, beyond: Beyond) -> form.Message:
    content = block.content or ""
    parts: list[form.Part] = []
    if not isinstance(content, str):
        for position, shown in enumerate(content):
            parts += _parts(shown, f"{place}.content.{position}", beyond)
    return form.Message(
        role="tool",
        tool_call_id=block.tool_use_id,
        content=content if isinstance(content, str) else _content(parts),
        is_error=bool(block.is_error),
        cache_control=block.cache_control,
    )


def _content(parts: list[form.Part]) -> str | list[form.Part]:
    """One text that nothing is said of is a text: there are servers that know no parts."""
    if not parts:
        return ""
    only = parts[0]
    is_plain = len(parts) == 1 and isinstance(only, form.Text) and only.cache_control is msgspec.UNSET
    return only.text if is_plain and isinstance(only, form.Text) else parts


def _parts(block: Shown, place: str, beyond: Beyond) -> list[form.Part]:
    if isinstance(block, schema.TextBlock):
        return [] if block is NOTHING else [_text(block)]
    if isinstance(block, schema.ImageBlock):
        return [_image(block, place)]
    if isinstance(block, schema.DocumentBlock):
        return _document(block, place, beyond)
    _no_citations(block.citations, place, beyond)
    found = "\n".join([block.title, block.source, "", *(each.text for each in block.content)])
    return [form.Text(text=found, cache_control=block.cache_control)]


def _text(block: schema.TextBlock) -> form.Part:
    return form.Text(text=block.text, cache_control=block.cache_control)


def _image(block: schema.ImageBlock, place: str) -> form.Part:
    source = block.source
    if isinstance(source, schema.FileSource):
        raise of_the_account(f"{place}.source")
    url = source.url if isinstance(source, schema.UrlSource) else f"data:{source.media_type};base64,{source.data}"
    return form.Image(image_url=form.ImageUrl(url=url), cache_control=block.cache_control)


def _document(block: schema.DocumentBlock, place: str, beyond: Beyond) -> list[form.Part]:
    _no_citations(block.citations, place, beyond)
    source, mark = block.source, block.cache_control
    if isinstance(source, schema.FileSource):
        raise of_the_account(f"{place}.source")
    about = [text for text in (block.title, block.context) if text]
    if isinstance(source, schema.TextSource):
        return [form.Text(text="\n\n".join([*about, source.data]), cache_control=mark)]
    if isinstance(source, schema.Base64Source):
        data = form.FileData(
            file_data=f"data:{source.media_type};base64,{source.data}", filename=block.title or _PDF_NAME
        )
        context: list[form.Part] = [form.Text(text=block.context)] if block.context else []
        return [*context, form.File(file=data, cache_control=mark)]
    parts: list[form.Part] = [form.Text(text=text) for text in about]
    if isinstance(source, schema.ContentSource):
        if isinstance(source.content, str):
            return [*parts, form.Text(text=source.content, cache_control=mark)]
        for position, each in enumerate(source.content):
            parts += _parts(each, f"{place}.source.content.{position}", beyond)
        return parts
    beyond(f"{place}.source")
    return []


def _no_citations(config: msgspec.Raw | schema.Unset, place: str, beyond: Beyond) -> None:
    """Answers that cite have no form in a chat."""
    if config is not msgspec.UNSET and b"true" in bytes(config):
        beyond(f"{place}.citations")


def _object(raw: msgspec.Raw, place: str) -> str:
    """The arguments of a call, as they were written. Raises InvalidRequest where they are no object."""
    text = bytes(raw).decode()
    if not text.startswith("{"):
        raise InvalidRequest(f"`{place}` must be an object.", code="invalid_type", param=place)
    return text


def of_the_account(place: str) -> InvalidRequest:
    """The refusal of what names something that a provider keeps for all tenants together."""
    return InvalidRequest(
        f"`{place}` names what the provider keeps, which is not for callers of this gateway.",
        code="unsupported_field",
        param=place,
    )


def _misplaced(place: str, role: str) -> InvalidRequest:
    return InvalidRequest(f"`{place}` is of a type that role `{role}` cannot have.", param=place)
