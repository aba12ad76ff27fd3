"""The official ``anthropic`` client, sync and async, behind one blocking face, so that one test shows both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, RawMessageStreamEvent

from tests.support.gateway import GatewayProcess

Kind = Literal["sync", "async"]
T = TypeVar("T")
KINDS: tuple[Kind, ...] = ("sync", "async")


@dataclass(frozen=True)
class Streamed:
    """A stream as the client's accumulator read it: its events, and the message that they make."""

    events: list[Any]
    message: Message

    @property
    def kinds(self) -> list[str]:
        """The types of the events as they came on the wire."""
        return [event.type for event in self.events]


class MessagesApi:
    """Calls of one kind of client. Every call has a client of its own, closed after it.

    ``options`` go to the client: ``timeout`` in seconds, ``max_retries`` (none unless it is given),
    ``default_headers``.
    """

    def __init__(self, kind: Kind, gateway: GatewayProcess, *, key: str | None = None, **options: Any) -> None:
        self.kind = kind
        self._options: dict[str, Any] = {
            "base_url": gateway.base_url,
            "api_key": gateway.key if key is None else key,
            "max_retries": 0,
            "timeout": 20.0,
        } | options

    def create(self, **fields: Any) -> Message:
        """One whole message."""
        answer = self.same(lambda client: client.messages.create(**fields))
        assert isinstance(answer, Message)
        return answer

    def raw_events(self, **fields: Any) -> list[RawMessageStreamEvent]:
        """Every event of a stream, as the client types it."""
        return self.run(
            lambda client: list(client.messages.create(stream=True, **fields)),
            lambda client: _raw_events(client, fields),
        )

    def stream(self, **fields: Any) -> Streamed:
        """A stream read by the client's accumulator, which refuses events out of order."""
        return self.run(lambda client: _streamed(client, fields), lambda client: _streamed_async(client, fields))

    def same(self, call: Callable[[Any], Any]) -> Any:
        """Call what is written the same for both kinds."""
        return self.run(call, call)

    def run(self, blocking: Callable[[Anthropic], T], coroutine: Callable[[AsyncAnthropic], Awaitable[T]]) -> T:
        """Call the function for this kind with a fresh client."""
        if self.kind == "sync":
            with Anthropic(**self._options) as client:
                return blocking(client)

        async def main() -> T:
            async with AsyncAnthropic(**self._options) as client:
                return await coroutine(client)

        return asyncio.run(main())


async def _raw_events(client: AsyncAnthropic, fields: dict[str, Any]) -> list[RawMessageStreamEvent]:
    return [event async for event in await client.messages.create(stream=True, **fields)]


def _streamed(client: Anthropic, fields: dict[str, Any]) -> Streamed:
    with client.messages.stream(**fields) as stream:
        events = list(stream)
        return Streamed(events, stream.get_final_message())


async def _streamed_async(client: AsyncAnthropic, fields: dict[str, Any]) -> Streamed:
    async with client.messages.stream(**fields) as stream:
        events = [event async for event in stream]
        return Streamed(events, await stream.get_final_message())
