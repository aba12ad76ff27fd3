"""The official ``anthropic`` client for Python."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message, ToolParam

from tests.support.matrix.openai_chat import PIXEL, City
from tests.support.matrix.said import CALLS, REASON, WEATHER, Model, Said
from tests.support.scripts import Gate

TOOL: ToolParam = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_MAX = 100


class AnthropicMessages:
    """The features, each a method that raises where it does not work."""

    title = "`anthropic` for Python"

    def __init__(self, base_url: str, key: str, model: str) -> None:
        self._client = Anthropic(base_url=base_url, api_key=key, max_retries=0, timeout=20.0)
        self._base_url = base_url
        self._model = model

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _ask(self, *messages: Any, **fields: Any) -> Message:
        said = messages or ({"role": "user", "content": "Hello"},)
        made: Message = self._client.messages.create(model=self._model, max_tokens=_MAX, messages=list(said), **fields)
        return made

    def text(self, model: Model) -> None:
        """A question and its answer, with usage."""
        model.will(Said("Good morning"))
        answer = self._ask()
        assert _text(answer) == "Good morning"
        assert answer.stop_reason == "end_turn"
        assert answer.usage.input_tokens > 0

    def system(self, model: Model) -> None:
        """It reaches the backend."""
        model.will(Said("Yes"))
        self._ask(system="Be kind.")
        assert b"Be kind." in model.bodies[0]

    def turns(self, model: Model) -> None:
        """What was said before reaches the backend."""
        model.will(Said("Blue"))
        answer = self._ask(
            {"role": "user", "content": "I like blue."},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "What do I like?"},
        )
        assert _text(answer) == "Blue"
        assert b"Noted." in model.bodies[0]

    def image(self, model: Model) -> None:
        """As base64 data."""
        model.will(Said("A pixel"))
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        answer = self._ask({"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]})
        assert _text(answer) == "A pixel"
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
        asked = self._ask(*messages, tools=[TOOL])
        assert asked.stop_reason == "tool_use"
        calls = [each for each in asked.content if each.type == "tool_use"]
        assert [each.input for each in calls] == [{"city": each.city} for each in CALLS[:count]]
        messages.append({"role": "assistant", "content": asked.content})
        results = [{"type": "tool_result", "tool_use_id": each.id, "content": f"of {each.id}"} for each in calls]
        messages.append({"role": "user", "content": results})
        assert _text(self._ask(*messages, tools=[TOOL])) == WEATHER

    def stream(self, model: Model) -> None:
        """Piece by piece; the client's own accumulator takes every event."""
        model.will(Said(WEATHER))
        with self._client.messages.stream(
            model=self._model, max_tokens=_MAX, messages=[{"role": "user", "content": "Hello"}]
        ) as stream:
            pieces = list(stream.text_stream)
            answer = stream.get_final_message()
        assert "".join(pieces) == _text(answer) == WEATHER
        assert len(pieces) > 1
        assert answer.usage.output_tokens > 0

    def stream_tools(self, model: Model) -> None:
        """The client's own accumulator makes whole calls of them."""
        model.will(Said(calls=CALLS))
        with self._client.messages.stream(
            model=self._model, max_tokens=_MAX, messages=[{"role": "user", "content": "Weather?"}], tools=[TOOL]
        ) as stream:
            answer = stream.get_final_message()
        calls = [each.input for each in answer.content if each.type == "tool_use"]
        assert calls == [{"city": each.city} for each in CALLS]

    def stop(self, model: Model) -> None:
        """They reach the backend."""
        model.will(Said("One", stopped_by="END"))
        self._ask(stop_sequences=["END"])
        assert b'"END"' in model.bodies[0]

    def structured(self, model: Model) -> None:
        """Parsed by the client."""
        model.will(Said('{"city":"Bonn"}'))
        answer = self._client.messages.parse(
            model=self._model, max_tokens=_MAX, messages=[{"role": "user", "content": "Where?"}], output_format=City
        )
        assert answer.parsed_output == City(city="Bonn")
        assert b"city" in model.bodies[0]

    def refused(self, model: Model) -> None:
        """With the backend's reason."""
        model.will("refused")
        with pytest.raises(anthropic.BadRequestError, match=REASON):
            self._ask()

    def wrong_key(self, _: Model) -> None:
        """The client knows it."""
        with (
            Anthropic(base_url=self._base_url, api_key="x" * 20, max_retries=0) as client,
            pytest.raises(anthropic.AuthenticationError),
        ):
            client.messages.create(model=self._model, max_tokens=_MAX, messages=[{"role": "user", "content": "Hello"}])

    def unknown_model(self, _: Model) -> None:
        """The client knows it."""
        with pytest.raises(anthropic.NotFoundError):
            self._client.messages.create(
                model="nothing", max_tokens=_MAX, messages=[{"role": "user", "content": "Hello"}]
            )

    def limited(self, _: Model) -> None:
        """Of a caller whose limit is used up."""
        with pytest.raises(anthropic.RateLimitError) as caught:
            self._ask()
        assert int(caught.value.response.headers["retry-after"]) > 0
        assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"

    def failed(self, model: Model) -> None:
        """Told as the gateway's own failure, without the backend's words."""
        model.will("failed")
        with pytest.raises(anthropic.APIStatusError) as caught:
            self._ask()
        assert caught.value.status_code >= 500
        assert REASON not in str(caught.value)

    def overloaded(self, model: Model) -> None:
        """To come again, by the error's own type."""
        model.will("overloaded")
        with pytest.raises(anthropic.APIStatusError) as caught:
            self._ask()
        assert "overloaded_error" in str(caught.value.body)

    def breaks(self, model: Model) -> None:
        """The client raises after what it had."""
        model.will("breaks")
        model.heard = Gate()
        with pytest.raises(anthropic.APIError):
            self._listen(model.heard)
        assert model.heard.is_open

    def _listen(self, heard: Gate) -> None:
        with self._client.messages.stream(
            model=self._model, max_tokens=_MAX, messages=[{"role": "user", "content": "Hello"}]
        ) as stream:
            for _ in stream.text_stream:
                heard.open()

    def count(self, _: Model) -> None:
        """About, unless the provider counts."""
        counted = self._client.messages.count_tokens(model=self._model, messages=[{"role": "user", "content": "Hello"}])
        assert counted.input_tokens > 0


def _text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")
