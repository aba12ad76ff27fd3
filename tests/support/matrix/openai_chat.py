"""The official ``openai`` client for Python: chat completions."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageParam, ChatCompletionToolUnionParam

from tests.support.matrix.said import CALLS, REASON, WEATHER, Model, Said
from tests.support.scripts import Gate

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class City(pydantic.BaseModel):
    """What is asked for."""

    city: str


class OpenAIChat:
    """The features, each a method that raises where it does not work."""

    title = "`openai` for Python, Chat Completions"

    def __init__(self, base_url: str, key: str, model: str) -> None:
        self._client = OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0, timeout=20.0)
        self._base_url = base_url
        self._model = model

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _ask(self, *messages: ChatCompletionMessageParam, **fields: Any) -> ChatCompletionMessage:
        answer = self._client.chat.completions.create(model=self._model, messages=messages, **fields)
        said: ChatCompletionMessage = answer.choices[0].message
        return said

    def _hello(self, **fields: Any) -> ChatCompletionMessage:
        return self._ask({"role": "user", "content": "Hello"}, **fields)

    def text(self, model: Model) -> None:
        """A question and its answer, with usage."""
        model.will(Said("Good morning"))
        answer = self._client.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": "Hello"}], max_tokens=50
        )
        assert answer.choices[0].message.content == "Good morning"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 0

    def system(self, model: Model) -> None:
        """It reaches the backend."""
        model.will(Said("Yes"))
        self._ask({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"})
        assert b"Be kind." in model.bodies[0]

    def turns(self, model: Model) -> None:
        """What was said before reaches the backend."""
        model.will(Said("Blue"))
        answer = self._ask(
            {"role": "user", "content": "I like blue."},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "What do I like?"},
        )
        assert answer.content == "Blue"
        assert b"Noted." in model.bodies[0]

    def image(self, model: Model) -> None:
        """As base64 data."""
        model.will(Said("A pixel"))
        url = f"data:image/png;base64,{PIXEL}"
        parts: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        assert self._ask({"role": "user", "content": parts}).content == "A pixel"
        assert PIXEL.encode() in model.bodies[0]

    def tool(self, model: Model) -> None:
        """Called once, its result sent, and the answer had."""
        self._loop(model, 1)

    def tools(self, model: Model) -> None:
        """Two calls in one answer."""
        self._loop(model, 2)

    def _loop(self, model: Model, count: int) -> None:
        model.will(Said(calls=CALLS[:count]), Said(WEATHER))
        messages: list[Any] = [{"role": "user", "content": "Weather?"}]
        asked = self._ask(*messages, tools=[TOOL], tool_choice="auto")
        calls = [each for each in asked.tool_calls or () if each.type == "function"]
        assert [json.loads(each.function.arguments)["city"] for each in calls] == [each.city for each in CALLS[:count]]
        messages.append(asked.model_dump(exclude_none=True))
        messages += [{"role": "tool", "tool_call_id": each.id, "content": f"of {each.id}"} for each in calls]
        assert self._ask(*messages, tools=[TOOL]).content == WEATHER

    def stream(self, model: Model) -> None:
        """Piece by piece, and usage where it is asked for."""
        model.will(Said(WEATHER))
        chunks = list(
            self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": "Hello"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        pieces = [each.choices[0].delta.content or "" for each in chunks if each.choices]
        assert "".join(pieces) == WEATHER
        assert len([each for each in pieces if each]) > 1
        assert chunks[-1].usage is not None

    def stream_tools(self, model: Model) -> None:
        """The client's own accumulator makes whole calls of them."""
        model.will(Said(calls=CALLS))
        with self._client.chat.completions.stream(
            model=self._model, messages=[{"role": "user", "content": "Weather?"}], tools=[TOOL]
        ) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
        calls = [each for each in message.tool_calls or () if each.type == "function"]
        assert [json.loads(each.function.arguments)["city"] for each in calls] == [each.city for each in CALLS]

    def stop(self, model: Model) -> None:
        """They reach the backend, and the answer ends as one that stopped."""
        model.will(Said("One", stopped_by="END"))
        self._hello(stop=["END"])
        assert b'"END"' in model.bodies[0]

    def structured(self, model: Model) -> None:
        """Parsed by the client."""
        model.will(Said('{"city":"Bonn"}'))
        answer = self._client.chat.completions.parse(
            model=self._model, messages=[{"role": "user", "content": "Where?"}], response_format=City
        )
        assert answer.choices[0].message.parsed == City(city="Bonn")
        assert b"city" in model.bodies[0]

    def refused(self, model: Model) -> None:
        """With the backend's reason."""
        model.will("refused")
        with pytest.raises(openai.BadRequestError, match=REASON):
            self._hello()

    def wrong_key(self, _: Model) -> None:
        """The client knows it."""
        with (
            OpenAI(base_url=f"{self._base_url}/v1", api_key="x" * 20, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.chat.completions.create(model=self._model, messages=[{"role": "user", "content": "Hello"}])

    def unknown_model(self, _: Model) -> None:
        """The client knows it."""
        with pytest.raises(openai.NotFoundError):
            self._client.chat.completions.create(model="nothing", messages=[{"role": "user", "content": "Hello"}])

    def limited(self, _: Model) -> None:
        """Of a caller whose limit is used up."""
        with pytest.raises(openai.RateLimitError) as caught:
            self._hello()
        assert int(caught.value.response.headers["retry-after"]) > 0

    def failed(self, model: Model) -> None:
        """Told as the gateway's own failure, without the backend's words."""
        model.will("failed")
        with pytest.raises(openai.InternalServerError) as caught:
            self._hello()
        assert caught.value.status_code == 502
        assert REASON not in str(caught.value)

    def overloaded(self, model: Model) -> None:
        """503, to come again."""
        model.will("overloaded")
        with pytest.raises(openai.InternalServerError) as caught:
            self._hello()
        assert caught.value.status_code == 503

    def breaks(self, model: Model) -> None:
        """The client raises after what it had."""
        model.will("breaks")
        model.heard = Gate()
        with pytest.raises(openai.APIError):
            self._listen(model.heard)
        assert model.heard.is_open

    def _listen(self, heard: Gate) -> None:
        for chunk in self._client.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": "Hello"}], stream=True
        ):
            if any(each.delta.content for each in chunk.choices):
                heard.open()
