"""The official ``openai`` client's Responses before Gemini: a third dialect meets it in the chat form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.documents import api_key, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.gemini import Gemini, call, candidate, response
from tests.support.openai_api import KINDS, Api, Kind
from tests.support.upstream import ScriptedUpstream

CALLED = call("get_weather", {"city": "Bonn"}, call_id="c1", signature="c2ln")


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[GatewayProcess, Gemini]]:
    """The scenario ``chat``."""
    key = new_key()
    gemini = Gemini()
    with ScriptedUpstream(gemini) as upstream:
        spec = {"provider": "gemini", "url": f"{upstream.url}/v1beta", "model": "gemini-3-flash"}
        documents = [document("Backend", "chat", spec), scenario("chat", "chat"), tenant("acme"), api_key("k", key)]
        with GatewayProcess(documents, key=key) as gateway:
            yield gateway, gemini


@pytest.mark.parametrize("kind", KINDS)
def test_callers_of_responses(kind: Kind, running: tuple[GatewayProcess, Gemini]) -> None:
    """A third dialect meets Gemini in the chat form: reasoning, a call with its signature, and its result."""
    gateway, gemini = running
    api = Api(kind, gateway)
    gemini.forget()
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    gemini.reply = [
        response(candidate({"text": "Hm.", "thought": True}, "Let me see.", finish=None)),
        response(candidate(CALLED)),
    ]
    asked: dict[str, Any] = {"model": "chat", "tools": [tool], "reasoning": {"effort": "low"}}
    question: Any = {"role": "user", "content": "Good morning"}

    def stream(client: openai.OpenAI) -> Any:
        with client.responses.stream(input=[question], **asked) as events:
            return events.get_final_response()

    async def stream_async(client: openai.AsyncOpenAI) -> Any:
        async with client.responses.stream(input=[question], **asked) as events:
            return await events.get_final_response()

    first = api.run(stream, stream_async)
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    gemini.reply = None
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "sunny"}
    said = [question, *first.output, result]
    last = api._run(lambda client: client.responses.create(input=said, **asked))
    assert last.output_text == "Hello from Gemini"
    assert gemini.bodies[1]["contents"][1:] == [
        {"role": "model", "parts": [{"text": "Let me see."}, CALLED]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "c1", "name": "get_weather", "response": {"output": "sunny"}}}],
        },
    ]
    assert gemini.problems == []
