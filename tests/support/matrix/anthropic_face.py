"""Anthropic."""

from __future__ import annotations

import json
from typing import Any

from anthropic.types import message_count_tokens_params
from pydantic import TypeAdapter, ValidationError

from tests.support import anthropic_api as api
from tests.support.documents import Document, backend
from tests.support.matrix.said import REASON, Said, Trouble
from tests.support.scripts import Received, Script, json_reply, stream

_COUNT = "/v1/messages/count_tokens"
_COUNTED: TypeAdapter[Any] = TypeAdapter(message_count_tokens_params.MessageCountTokensParams)


class AnthropicFace:
    """Claude."""

    name = "anthropic"

    def __init__(self) -> None:
        self._claude = api.Claude()

    def document(self, url: str) -> Document:
        """See Face."""
        auth = {"type": "header", "name": "x-api-key", "secret": {"env": "LLM_GATEWAY_SECRET_MATRIX_ANTHROPIC"}}
        return backend(self.name, f"{url}/v1", provider="anthropic", model=api.NEW_MODEL, auth=auth)

    def key(self) -> str:
        """See Face."""
        return api.KEY

    def problems(self, request: Received) -> list[str]:
        """See Face."""
        if request.target != _COUNT:
            return self._claude.look_at(request)
        try:
            _COUNTED.validate_python(json.loads(request.body), extra="forbid")
        except ValidationError as error:
            return [str(error)]
        return []

    def says(self, said: Said, request: Received) -> Script:
        """See Face."""
        if request.target == _COUNT:
            return json_reply({"input_tokens": 9})
        blocks = [api.text(said.text)] if said.text else []
        blocks += [api.tool_use("get_weather", {"city": call.city}, call.id) for call in said.calls]
        reason = "tool_use" if said.calls else "stop_sequence" if said.stopped_by else "end_turn"
        answer = api.message(*blocks, stop_reason=reason, stop_sequence=said.stopped_by or None)
        if request.wants_stream():
            return stream([api.sse(event) for event in api.events_of(answer)])
        return json_reply(answer)

    def trouble(self, trouble: Trouble, request: Received) -> Script:
        """See Face."""
        if trouble == "refused":
            return api.error("invalid_request_error", REASON)
        if trouble == "failed":
            return api.error("api_error", REASON, 500)
        if trouble == "overloaded":
            return api.error("overloaded_error", REASON, 529)
        told = [api.sse(event) for event in api.events_of(api.message(api.text("Good morning to you")))]
        return stream([*told[:5], api.error_event("overloaded_error", "overloaded")])
