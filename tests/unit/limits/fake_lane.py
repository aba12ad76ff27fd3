"""A lane whose answers the test gives: what was asked stays visible and unanswered until then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.errors import RedisFailure
from gateway.limits.scripts import LimitScripts
from gateway.limits.wire import SPEC_VALUES
from gateway.redis.command import Gathering
from gateway.redis.script import Script, ScriptCall
from tests.support.limit_server import unpacked

SCRIPTS = LimitScripts(**{name: Script(name, name) for name in ("admit", "settle", "void", "renew", "levels")})


class Asked:
    """One command: what it is, and the future of its answer."""

    def __init__(self, what: str, parts: Sequence[Any]) -> None:
        self.what = what
        self.parts = parts
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def arguments(self) -> Any:
        """What a script was given; of one that is told of limits first, what comes after them."""
        given = msgspec.msgpack.decode(self.parts[1][0])
        return given if self.what == "renew" else given[1 + SPEC_VALUES * given[0] :]

    @property
    def calls(self) -> list[list[Any]]:
        """What an admission or a settlement was told of each call."""
        fixed, values = {"admit": (6, 8), "settle": (7, 17)}[self.what]
        given = self.arguments
        assert len(given) == fixed + given[0] * values
        return [given[at : at + values] for at in range(fixed, len(given), values)]


class FakeLane:
    """Satisfies LaneLike."""

    def __init__(self) -> None:
        self.available = True
        self.asked: list[Asked] = []
        self.listeners: list[Callable[[bool], None]] = []
        self.loss_listeners: list[Callable[[], None]] = []
        self.answer: Callable[[Asked], Any] | None = None
        self.gathers = False  # what is gathered is written at the end of the turn, not at once

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """See LaneLike."""
        return self._ask(Asked(script.name, (keys, args)))

    def call(self, script: Script, call: ScriptCall) -> asyncio.Future[Any]:
        """See LaneLike."""
        count, *values = unpacked(call.packed)
        keys = int(count)
        assert 1 + len(values) == call.parts
        assert call.key == values[0]
        return self.run(script, values[:keys], values[keys:])

    def gather(self, script: Script, key: bytes, gathering: Gathering) -> None:
        """See LaneLike."""
        if self.gathers:
            asyncio.get_running_loop().call_soon(self._write, script, key, gathering)
        else:
            self._write(script, key, gathering)

    def _write(self, script: Script, key: bytes, gathering: Gathering) -> None:
        call = gathering.written()
        assert key == call.key

        def done(future: asyncio.Future[Any]) -> None:
            failure = future.exception()
            if isinstance(failure, RedisFailure):
                gathering.failed(failure)
            else:
                gathering.answered(future.result())

        future = self.call(script, call)
        if future.done():
            done(future)
        else:
            future.add_done_callback(done)

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """See LaneLike."""
        return self._ask(Asked(str(parts[0]), parts))

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """See LaneLike."""
        self.listeners.append(callback)

    def on_loss(self, callback: Callable[[], None]) -> None:
        """See LaneLike."""
        self.loss_listeners.append(callback)

    def lose(self) -> None:
        """The server may have lost writes."""
        for each in self.loss_listeners:
            each()

    def change(self, *, available: bool) -> None:
        """The breaker closes or opens."""
        self.available = available
        for each in self.listeners:
            each(available)

    def names(self) -> list[str]:
        """What was asked, in order."""
        return [each.what for each in self.asked]

    def _ask(self, asked: Asked) -> asyncio.Future[Any]:
        self.asked.append(asked)
        if self.answer is not None:
            answer = self.answer(asked)
            if isinstance(answer, Exception):
                asked.future.set_exception(answer)
            else:
                asked.future.set_result(answer)
        return asked.future


def packed(*parts: Any) -> bytes:
    """A script's reply."""
    return msgspec.msgpack.encode(parts)


def ended(epoch: str = "e1", outcome: int = 0) -> bytes:
    """The reply to a void."""
    return packed(outcome, epoch)


def settled(*outcomes: int, epoch: str = "e1") -> bytes:
    """The reply to a settlement."""
    return packed(epoch, list(outcomes or (0,)))


def admission(
    *, status: int = 1, epoch: str = "e1", now_ms: int = 1_000_000, used: Sequence[int] = (1,), calls: int = 1
) -> bytes:
    """The reply to admissions; each refused by the first limit where ``status`` is 0."""
    many = [0] * len(used)
    refused = 1 if status == 0 else 0
    return packed(epoch, now_ms, 0, many, many, [refused, 2500 * refused, -1, 20, 30, 0, *used] * calls)
