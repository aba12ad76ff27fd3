"""What each client can do over each provider: what the tests show and ``docs/dialects.md`` tells.

A cell is a yes unless it is named here, with why it is none; each why is shown by a test, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.support.matrix.anthropic_face import AnthropicFace
from tests.support.matrix.anthropic_messages import AnthropicMessages
from tests.support.matrix.bedrock_face import BedrockFace
from tests.support.matrix.features import FEATURES
from tests.support.matrix.gemini_face import GeminiFace
from tests.support.matrix.openai_chat import OpenAIChat
from tests.support.matrix.openai_face import OpenAIFace
from tests.support.matrix.openai_responses import OpenAIResponses
from tests.support.matrix.said import Client, Face


@dataclass(frozen=True)
class No:
    """Why a cell is no yes. ``param``: what the 400 names; empty where the client has no such call."""

    why: str
    param: str = ""


PYTHON: Final[dict[str, Callable[[str, str, str], Client]]] = {
    "chat": OpenAIChat,
    "responses": OpenAIResponses,
    "messages": AnthropicMessages,
}
TITLES: Final = {
    "chat": OpenAIChat.title,
    "responses": OpenAIResponses.title,
    "messages": AnthropicMessages.title,
}
NODE: Final = {
    "chat": "`openai` for Node.js, Chat Completions",
    "responses": "`openai` for Node.js, Responses",
    "messages": "`@anthropic-ai/sdk` for Node.js",
}


def faces() -> dict[str, Face]:
    """The providers, in the order of the tables."""
    made: tuple[Face, ...] = (OpenAIFace("openai"), OpenAIFace("azure"), AnthropicFace(), GeminiFace(), BedrockFace())
    return {face.name: face for face in made}


_NO_STOP: Final = No("Responses have no stop sequences.")
_NO_COUNT: Final = No("Chat Completions have no such call.")
NOES: Final[dict[tuple[str, str, str], No]] = {
    **{("responses", provider, "stop"): _NO_STOP for provider in faces()},
    **{("chat", provider, "count"): _NO_COUNT for provider in faces()},
}
"""By dialect, provider and feature."""


def no(dialect: str, provider: str, feature: str) -> No | None:
    """Why a client of this dialect cannot do this over this provider; None: it can."""
    return NOES.get((dialect, provider, feature))


def tables() -> str:
    """The tables of the document, in Markdown."""
    return "\n".join(
        [
            *(part for dialect, title in TITLES.items() for part in _table(title, dialect)),
            *(part for dialect, title in NODE.items() for part in _table(title, dialect)),
        ]
    )


def _table(title: str, dialect: str) -> list[str]:
    providers = list(faces())
    whys: list[str] = []
    lines = [f"### {title}", "", f"| | {' | '.join(providers)} |", f"|---|{'---|' * len(providers)}"]
    for feature, name in FEATURES.items():
        cells = []
        for provider in providers:
            found = no(dialect, provider, feature)
            if found is None:
                cells.append("yes")
                continue
            if found.why not in whys:
                whys.append(found.why)
            cells.append(f"no ({whys.index(found.why) + 1})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {why}" for number, why in enumerate(whys, 1))]
    return [*lines, ""] if whys else lines
