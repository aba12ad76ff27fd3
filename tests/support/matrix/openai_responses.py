"""The official ``openai`` client for Python: Responses."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam, Response

from tests.support.matrix.openai_chat import PIXEL, City
from tests.support.matrix.said import CALLS, REASON, WEATHER, Model, Said
from tests.support.scripts import Gate

TOOL: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


class OpenAIResponses:
    """The features, each a method that raises where it does not work."""

    title = "`openai` for Python, Responses"

    def __init__(self, base_url: str, key: str, model: str) -> None:
        self._client = OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0, timeout=20.0)
        self._base_url = base_url
        self._model = model

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _ask(self, said: Any = "Hello", **fields: Any) -> Response:
        answer: Response = self._client.responses.create(model=self._model, input=said, **fields)
        return answer

    def text(self, model: Model) -> None:
        """A question and its answer, with usage."""
        model.will(Said("Good morning"))
        answer = self._ask(max_output_tokens=50)
        assert (answer.output_text, answer.status) == ("Good morning", "completed")
        assert answer.usage is not None
        assert answer.usage.input_tokens > 0

    def system(self, model: Model) -> None:
        """As ``instructions``."""
        model.will(Said("Yes"))
        self._ask(instructions="Be kind.")
        assert b"Be kind." in model.bodies[0]

    def turns(self, model: Model) -> None:
        """By the id of the last response."""
        model.will(Said("Noted."), Said("Blue"))
        first = self._ask("I like blue.")
        assert self._ask("What do I like?", previous_response_id=first.id).output_text == "Blue"
        assert b"Noted." in model.bodies[1]

    def image(self, model: Model) -> None:
        """As base64 data."""
        model.will(Said("A pixel"))
        parts = [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
        ]
        assert self._ask([{"role": "user", "content": parts}]).output_text == "A pixel"
        assert PIXEL.encode() in model.bodies[0]

    def tool(self, model: Model) -> None:
        """Called once, its result sent, and the answer had."""
        self._loop(model, 1)

    def tools(self, model: Model) -> None:
        """Two calls in one answer."""
        self._loop(model, 2)

    def _loop(self, model: Model, count: int) -> None:
        model.will(Said(calls=CALLS[:count]), Said(WEATHER))
        asked = self._ask("Weather?", tools=[TOOL])
        calls = [each for each in asked.output if each.type == "function_call"]
        assert [json.loads(each.arguments)["city"] for each in calls] == [each.city for each in CALLS[:count]]
        results = [
            {"type": "function_call_output", "call_id": each.call_id, "output": f"of {each.call_id}"} for each in calls
        ]
        assert self._ask(results, previous_response_id=asked.id, tools=[TOOL]).output_text == WEATHER

    def stream(self, model: Model) -> None:
        """Piece by piece; the client's own accumulator takes every event."""
        model.will(Said(WEATHER))
        with self._client.responses.stream(model=self._model, input="Hello") as stream:
            pieces = [each.delta for each in stream if each.type == "response.output_text.delta"]
            assert stream.get_final_response().output_text == WEATHER
        assert "".join(pieces) == WEATHER
        assert len(pieces) > 1

    def stream_tools(self, model: Model) -> None:
        """The client's own accumulator makes whole calls of them."""
        model.will(Said(calls=CALLS))
        with self._client.responses.stream(model=self._model, input="Weather?", tools=[TOOL]) as stream:
            for _ in stream:
                pass
            output = stream.get_final_response().output
        cities = [json.loads(each.arguments)["city"] for each in output if each.type == "function_call"]
        assert cities == [each.city for each in CALLS]

    def structured(self, model: Model) -> None:
        """Parsed by the client."""
        model.will(Said('{"city":"Bonn"}'))
        answer = self._client.responses.parse(model=self._model, input="Where?", text_format=City)
        assert answer.output_parsed == City(city="Bonn")
        assert b"city" in model.bodies[0]

    def refused(self, model: Model) -> None:
        """With the backend's reason."""
        model.will("refused")
        with pytest.raises(openai.BadRequestError, match=REASON):
            self._ask()

    def wrong_key(self, _: Model) -> None:
        """The client knows it."""
        with (
            OpenAI(base_url=f"{self._base_url}/v1", api_key="x" * 20, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.responses.create(model=self._model, input="Hello")

    def unknown_model(self, _: Model) -> None:
        """The client knows it."""
        with pytest.raises(openai.NotFoundError):
            self._client.responses.create(model="nothing", input="Hello")

    def limited(self, _: Model) -> None:
        """Of a caller whose limit is used up."""
        with pytest.raises(openai.RateLimitError) as caught:
            self._ask()
        assert int(caught.value.response.headers["retry-after"]) > 0

    def failed(self, model: Model) -> None:
        """Told as the gateway's own failure, without the backend's words."""
        model.will("failed")
        with pytest.raises(openai.InternalServerError) as caught:
            self._ask()
        assert caught.value.status_code == 502
        assert REASON not in str(caught.value)

    def overloaded(self, model: Model) -> None:
        """503, to come again."""
        model.will("overloaded")
        with pytest.raises(openai.InternalServerError) as caught:
            self._ask()
        assert caught.value.status_code == 503

    def breaks(self, model: Model) -> None:
        """The last event is that of a failed response."""
        model.will("breaks")
        model.heard = Gate()
        kinds: list[str] = []
        for event in self._client.responses.create(model=self._model, input="Hello", stream=True):
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                model.heard.open()
        assert kinds[-1] == "response.failed"

    def count(self, _: Model) -> None:
        """About, and without a call."""
        assert self._client.responses.input_tokens.count(model=self._model, input="Hello").input_tokens > 0
