"""What callers of Completions speak. Pure."""

from __future__ import annotations

from typing import Final

from gateway.dialects.completions.answer import CompletionEvents, whole_completion
from gateway.dialects.completions.read import read_completion
from gateway.dialects.openai.errors import OpenAIErrors
from gateway.model import ChatRequest, Dialect

_EVENT_BYTES_MAX: Final = 1 << 26  # what comes is whole events, and bounded by whoever passes them on


class CompletionsCall:
    """See ``ClientCall``."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members

    def read(self, body: bytes) -> ChatRequest:
        """See ``ClientCall``."""
        return read_completion(body, self._max_members)

    def whole(self, body: bytes) -> bytes:
        """See ``ClientCall``."""
        return whole_completion(body)

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002  # one form for all
        """See ``ClientCall``; errors look alike in both dialects."""
        return body

    def events(self) -> CompletionEvents:
        """See ``ClientCall``."""
        return CompletionEvents(_EVENT_BYTES_MAX)


class Completions(OpenAIErrors):
    """See ``ClientDialect``; errors are those of OpenAI's chat."""

    name: Final[Dialect] = "completions"

    @staticmethod
    def call(max_members: int) -> CompletionsCall:
        """See ``ClientDialect``."""
        return CompletionsCall(max_members)


COMPLETIONS = Completions()
