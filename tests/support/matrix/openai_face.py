"""OpenAI and Azure OpenAI: chat completions as they come."""

from __future__ import annotations

import json
from typing import Any, Literal

from openai.types.chat import completion_create_params
from pydantic import TypeAdapter, ValidationError

from tests.support.documents import Document, backend
from tests.support.matrix.said import REASON, Said, Trouble
from tests.support.scripts import DONE, Received, Script, error_reply, event, json_reply, stream

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_REQUEST: TypeAdapter[Any] = TypeAdapter(completion_create_params.CompletionCreateParams)


class OpenAIFace:
    """Both; they differ in address and credential."""

    def __init__(self, name: Literal["openai", "azure"]) -> None:
        self.name = name

    def document(self, url: str) -> Document:
        """See Face."""
        if self.name == "azure":
            auth = {"type": "header", "name": "api-key", "secret": {"env": "LLM_GATEWAY_SECRET_MATRIX"}}
            return backend(self.name, url, provider="azure", apiVersion="2024-10-21", model="upstream-model", auth=auth)
        auth = {"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_MATRIX"}}
        return backend(self.name, f"{url}/v1", model="upstream-model", auth=auth)

    def key(self) -> str:
        """See Face."""
        return "the-operators-key"

    def problems(self, request: Received) -> list[str]:
        """See Face."""
        found = []
        header, value = ("api-key", self.key()) if self.name == "azure" else ("authorization", f"Bearer {self.key()}")
        if request.header(header) != value:
            found.append("not the operator's key")
        try:
            _REQUEST.validate_python(json.loads(request.body), extra="forbid")
        except ValidationError as error:
            found.append(str(error))
        return found

    def says(self, said: Said, request: Received) -> Script:
        """See Face."""
        finish = "tool_calls" if said.calls else "stop"
        envelope = {"id": "chatcmpl-1", "created": 1760000000, "model": "upstream-model"}
        calls = [
            {"id": call.id, "type": "function", "function": {"name": "get_weather", "arguments": _arguments(call.city)}}
            for call in said.calls
        ]
        if not request.wants_stream():
            message = {"role": "assistant", "content": said.text or None, **({"tool_calls": calls} if calls else {})}
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return json_reply(envelope | {"object": "chat.completion", "choices": [choice], "usage": USAGE})
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": said.text[at : at + 5]} for at in range(0, len(said.text), 5)]
        for index, call in enumerate(calls):
            first = {"name": "get_weather", "arguments": ""}
            deltas.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": first}]})
            arguments = _arguments(said.calls[index].city)
            for at in range(0, len(arguments), 4):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 4]}}]})
        envelope["object"] = "chat.completion.chunk"
        told = [event(envelope | {"choices": [{"index": 0, "delta": each, "finish_reason": None}]}) for each in deltas]
        told.append(event(envelope | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))
        usage = [event(envelope | {"choices": [], "usage": USAGE})] if request.wants_usage() else []
        return stream([*told, *usage, DONE])

    def trouble(self, trouble: Trouble, request: Received) -> Script:
        """See Face."""
        if trouble == "refused":
            return error_reply(400, REASON)
        if trouble == "failed":
            return error_reply(500, REASON)
        if trouble == "overloaded":
            return error_reply(429, REASON, headers=[("retry-after", "3")])
        said = event({"choices": [{"index": 0, "delta": {"content": "Good"}, "finish_reason": None}]})
        return stream([said, event({"error": {"message": "overloaded", "type": "server_error", "code": None}})])


def _arguments(city: str) -> str:
    return json.dumps({"city": city})
