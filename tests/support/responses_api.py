"""Responses of the official ``openai`` client, and the chat completions that a backend answers them with."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.responses import FunctionToolParam, Response

from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.openai_api import Api
from tests.support.scripts import DONE, Script, event, json_reply, stream

KEY, OTHER_KEY = new_key(), new_key()
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 4},
}


def registry(url: str) -> list[Document]:
    """A scenario of each kind, for two tenants."""
    return [
        backend("chat", url, model="upstream-model"),
        backend("native", url, model="upstream-model", apis=["responses"]),
        scenario("chat", "chat"),
        scenario("lenient", "chat", lenient=True),
        scenario("native", "native"),
        scenario("prompted", "native", prompt="tone.v1", parameters={"maxOutputTokens": 40}),
        scenario("cached", "native", cache={"mode": "exact"}),
        {
            "apiVersion": "llmgateway.dev/v1alpha1",
            "kind": "Prompt",
            "metadata": {"name": "tone.v1"},
            "spec": {"inputVars": [], "template": "Be brief."},
        },
        tenant("acme"),
        tenant("other"),
        api_key("acme-key", KEY),
        api_key("other-key", OTHER_KEY, "other"),
    ]


def create(api: Api, **fields: Any) -> Response:
    """One whole response."""

    async def answer(client: AsyncOpenAI) -> Response:
        made: Response = await client.responses.create(**fields)
        return made

    def blocking(client: OpenAI) -> Response:
        made: Response = client.responses.create(**fields)
        return made

    return api.run(blocking, answer)


def events_of(api: Api, **fields: Any) -> tuple[list[Any], Response]:
    """The events of a stream, and the response that the client's own accumulator makes of them."""

    def blocking(client: OpenAI) -> tuple[list[Any], Response]:
        with client.responses.stream(**fields) as events:
            return list(events), events.get_final_response()

    async def coroutine(client: AsyncOpenAI) -> tuple[list[Any], Response]:
        async with client.responses.stream(**fields) as events:
            return [each async for each in events], await events.get_final_response()

    return api.run(blocking, coroutine)


def completion(message: dict[str, Any], finish: str = "stop", **fields: Any) -> Script:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "upstream-model"}
    return json_reply(envelope | {"choices": [choice], "usage": USAGE} | fields)


def chunks(*deltas: dict[str, Any], finish: str = "stop") -> Script:
    """A streamed one."""
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000, "model": "upstream-model"}
    said = [event(envelope | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas]
    last = event(envelope | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return stream([*said, last, event(envelope | {"choices": [], "usage": USAGE}), DONE])


def call_of(index: int, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """The beginning of a call in a stream."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


def more_of(index: int, arguments: str) -> dict[str, Any]:
    """More of its arguments."""
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
