"""The stream of a backend that speaks another dialect, as a source of chat events.

Invariant: what is taken is whole events, and each as soon as the backend has said what it takes to tell it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.dialects.contract import Translator
from gateway.upstream.source import Source


class TranslatedSource(Source):
    """Reads like the source that it wraps. See ``Source``."""

    __slots__ = ("_has_ended", "_source", "_translator", "delimited", "headers", "status")

    def __init__(self, source: Source, translator: Translator) -> None:
        self._source = source
        self._translator = translator
        self._has_ended = False
        self.status = source.status
        self.headers = source.headers
        self.delimited = True  # a translator knows the end of its dialect, and says where it is missing

    def take(self) -> bytes | None:
        """See Source."""
        while not self._has_ended:
            data = self._source.take()
            if data is None:
                return None
            if data:
                told = self._translator.feed(data)
            else:
                self._has_ended = True
                told = self._translator.end()
            if told:
                return told
        return b""

    def arrival(self) -> Awaitable[None]:
        """See Source."""
        return self._source.arrival()

    def listen(self, listener: Callable[[bool], None] | None) -> bool:
        """See Source."""
        return self._source.listen(listener)

    def whole(self) -> bytes | None:
        """Nothing of a stream is asked for whole."""
        return None

    def begun(self) -> None:
        """See Source."""
        self._source.begun()

    def close(self) -> None:
        """See Source."""
        self._source.close()
