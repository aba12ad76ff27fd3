"""What a server of OpenAI's chat dialect may be sent, by the types of OpenAI's own client, unknown keys refused."""

from __future__ import annotations

import functools
import typing
from typing import Any

import pydantic
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter, ValidationError

EXTENSIONS = frozenset({"reasoning_content"})
"""Keys of messages that servers of this dialect have added."""


def faults_of(body: dict[str, Any]) -> list[str]:
    """What is wrong with the body of a chat completion; of a top level that servers extend, only known fields count."""
    cleaned = body | {"messages": [_without_extensions(message) for message in body.get("messages", [])]}
    try:
        _adapter().validate_python(cleaned)
    except ValidationError as error:
        return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return []


def _without_extensions(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in EXTENSIONS}


@functools.cache
def _adapter() -> TypeAdapter[Any]:
    asked = completion_create_params.CompletionCreateParamsNonStreaming | (
        completion_create_params.CompletionCreateParamsStreaming
    )
    _forbid_unknown(asked, set())
    return TypeAdapter(asked)


def _forbid_unknown(hint: Any, seen: set[Any]) -> None:
    """Have pydantic refuse unknown keys of every typed dict that is reached."""
    if typing.is_typeddict(hint):
        if hint in seen:
            return
        seen.add(hint)
        hint.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
        for inner in typing.get_type_hints(hint, include_extras=True).values():
            _forbid_unknown(inner, seen)
    for inner in typing.get_args(hint):
        _forbid_unknown(inner, seen)
