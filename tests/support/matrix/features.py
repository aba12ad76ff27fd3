"""The features of the tables, in their order."""

from __future__ import annotations

from typing import Final

FEATURES: Final = {
    "text": "text",
    "system": "system prompt",
    "turns": "several turns",
    "image": "an image",
    "tool": "a tool, in a loop",
    "tools": "several tools at once, in a loop",
    "stream": "a streamed text",
    "stream_tools": "streamed tool calls",
    "stop": "stop sequences",
    "structured": "an answer of a schema",
    "refused": "400 of the backend",
    "wrong_key": "401",
    "unknown_model": "404",
    "limited": "429 with retry-after",
    "failed": "5xx",
    "overloaded": "overloaded",
    "breaks": "an error in a stream",
    "count": "tokens counted",
}
