"""The official ``openai`` client, sync and async, behind one blocking face, so that one test shows both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ParsedChatCompletion

from tests.support.gateway import GatewayProcess

Kind = Literal["sync", "async"]
T = TypeVar("T")
KINDS: tuple[Kind, ...] = ("sync", "async")


@dataclass(frozen=True)
class RawAnswer:
    """Status and headers (names in lower case) beside the parsed completion."""

    status: int
    headers: dict[str, str]
    completion: ChatCompletion


class Api:
    """Calls of one kind of client. Every call has a client of its own, closed after it.

    ``options`` go to the client: ``timeout`` in seconds, ``max_retries`` (none unless it is given),
    ``default_headers``.
    """

    def __init__(self, kind: Kind, gateway: GatewayProcess, *, key: str | None = None, **options: Any) -> None:
        self.kind = kind
        self._options: dict[str, Any] = {
            "base_url": f"{gateway.base_url}/v1",
            "api_key": gateway.key if key is None else key,
            "max_retries": 0,
            "timeout": 20.0,
        } | options

    def complete(self, **fields: Any) -> ChatCompletion:
        """One whole completion."""
        answer = self._run(lambda client: client.chat.completions.create(**fields))
        assert isinstance(answer, ChatCompletion)
        return answer

    def stream(self, **fields: Any) -> list[ChatCompletionChunk]:
        """Every chunk of a stream."""
        return self.run(
            lambda client: list(client.chat.completions.create(stream=True, **fields)),
            lambda client: _chunks(client, fields),
        )

    def parse(self, **fields: Any) -> ParsedChatCompletion[Any]:
        """A completion parsed into the model that ``response_format`` is."""
        answer = self._run(lambda client: client.chat.completions.parse(**fields))
        assert isinstance(answer, ParsedChatCompletion)
        return answer

    def raw(self, **fields: Any) -> RawAnswer:
        """A completion with the head of its response."""
        answer = self._run(lambda client: client.chat.completions.with_raw_response.create(**fields))
        return RawAnswer(answer.status_code, {name.lower(): v for name, v in answer.headers.items()}, answer.parse())

    def models(self) -> list[str]:
        """The ids that ``models.list`` yields."""
        return self.run(lambda client: [model.id for model in client.models.list()], _models)

    def run(self, blocking: Callable[[OpenAI], T], coroutine: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Call the function for this kind with a fresh client."""
        if self.kind == "sync":
            with OpenAI(**self._options) as client:
                return blocking(client)

        async def main() -> T:
            async with AsyncOpenAI(**self._options) as client:
                return await coroutine(client)

        return asyncio.run(main())

    def _run(self, call: Callable[[Any], Any]) -> Any:
        return self.run(call, call)


async def _chunks(client: AsyncOpenAI, fields: dict[str, Any]) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in await client.chat.completions.create(stream=True, **fields)]


async def _models(client: AsyncOpenAI) -> list[str]:
    return [model.id async for model in client.models.list()]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    """The text that a stream of one choice spells."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
