"""Anthropic Messages as callers speak it: see ``ClientCall``. Pure."""

from __future__ import annotations

import msgspec

from gateway.dialects.anthropic.errors import AnthropicErrors
from gateway.dialects.anthropic.read import read_betas, read_messages_request
from gateway.dialects.anthropic.stream_out import MessagesEvents
from gateway.dialects.anthropic.tell import refusal_told, whole_message
from gateway.dialects.contract import Translator
from gateway.model import ChatRequest, Dialect

_decode_stops = msgspec.json.Decoder(list[str]).decode


class MessagesCall:
    """One call. ``betas`` is what its header ``anthropic-beta`` says; ``max_members`` bounds those of its body."""

    def __init__(self, max_members: int, request_id: str, betas: str = "") -> None:
        self._max_members = max_members
        self._request_id = request_id
        self._betas = betas
        self._stops: frozenset[str] = frozenset()

    def read(self, body: bytes) -> ChatRequest:
        """See ClientCall."""
        request = read_messages_request(body, self._max_members, read_betas(self._betas) if self._betas else ())
        if "stop" in request.fields:
            self._stops = frozenset(_decode_stops(request.fields["stop"]))
        return request

    def whole(self, body: bytes) -> bytes:
        """See ClientCall."""
        return whole_message(body, self._stops)

    def refusal(self, status: int, body: bytes) -> bytes:
        """See ClientCall."""
        return refusal_told(status, body, self._request_id)

    def events(self) -> Translator:
        """See ClientCall."""
        return MessagesEvents(self._request_id, self._stops)


class MessagesDialect(AnthropicErrors):
    """The dialect, for the errors and headers of one request; see ``ClientDialect``."""

    name: Dialect = "messages"

    def call(self, max_members: int, betas: str = "") -> MessagesCall:
        """For one call; see ``MessagesCall``."""
        return MessagesCall(max_members, self.request_id, betas)
