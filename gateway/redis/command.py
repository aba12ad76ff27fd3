"""One command on its way: its bytes, the future of its answer, and what may still have to be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hiredis import pack_command

from gateway.errors import RedisRefused, RedisUnavailable

if TYPE_CHECKING:
    import asyncio

    from gateway.errors import RedisFailure
    from gateway.redis.script import Script, ScriptCall

REDIRECTS_MAX = 3
"""How often a cluster may send one command on before that is an error."""

_UNTOUCHED = frozenset(
    {"OOM", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOAUTH", "NOREPLICAS", "MISCONF", "BUSY"}
)
"""Error codes with which the server turns a command away before it does anything."""


class ErrorReply(Exception):
    """An error as the server wrote it; its first word is the code."""

    @property
    def code(self) -> str:
        """The first word."""
        return str(self).partition(" ")[0]

    def failure(self) -> RedisFailure:
        """What the sender of the command is told."""
        text = str(self)
        return RedisUnavailable(text) if self.code in _UNTOUCHED else RedisRefused(text)


class Command:
    """A command and its future. ``due`` is when it has waited too long (clock.monotonic), 0 until it was first tried.

    ``within_s`` is how long it has instead of the connection's deadline, 0 for that.
    ``expired`` says that its future has failed while its answer is outstanding: it keeps its place among the commands
    that wait for answers, so that the answer goes to nobody. A call of a script keeps what EVAL would need.
    """

    # Defaults of the class, since most commands never change them and an object is made for each command.
    due = 0.0
    within_s = 0.0
    expired = False
    script: Script | None = None
    call: ScriptCall | None = None
    redirects = 0
    slot = -1

    def __init__(self, future: asyncio.Future[Any], packed: bytes) -> None:
        self.future = future
        self.packed = packed

    def sealed(self) -> bytes:
        """Its bytes, which are written now."""
        return self.packed

    def take(self, answer: Any) -> None:
        """Give its future the answer, if it still waits."""
        future = self.future
        if not future.done():
            future.set_result(answer)

    def fail(self, failure: RedisFailure) -> None:
        """Give its future a failure, if it still waits. One that nobody reads is no news, so none is reported."""
        future = self.future
        if not future.done():
            future.set_exception(failure)
            future.exception()

    def carry_source(self) -> None:
        """Become an EVAL, which brings the script along."""
        assert self.script is not None
        assert self.call is not None
        self.packed = self.script.by_source(self.call)
        self.script = None


class Gathering(Protocol):
    """A call of a script to which more may be added until it is written; told at once of what became of it, once."""

    def written(self) -> ScriptCall:
        """All of it; nothing can be added any more. Must not raise."""

    def answered(self, answer: Any) -> None:
        """It was answered. Must not raise."""

    def failed(self, failure: RedisFailure) -> None:
        """It failed, maybe before it was written. Must not raise."""


class GatheredCommand(Command):
    """A call of a script that grows until it is written, and whose answer goes to who gathers in the turn it comes in.

    Its future is done when it is, and has no result of its own.
    """

    def __init__(self, future: asyncio.Future[Any], script: Script, gathering: Gathering) -> None:
        super().__init__(future, b"")
        self.script = script
        self._gathering = gathering

    def sealed(self) -> bytes:
        """See Command."""
        if self.call is None:
            self.call = self._gathering.written()
            if self.script is not None:
                self.packed = self.script.by_digest(self.call)
        return self.packed

    def take(self, answer: Any) -> None:
        """See Command."""
        if not self.future.done():
            self.future.set_result(None)
            self._gathering.answered(answer)

    def fail(self, failure: RedisFailure) -> None:
        """See Command."""
        if not self.future.done():
            self.future.set_result(None)
            self._gathering.failed(failure)


def pack(*parts: bytes | str | int) -> bytes:
    """The bytes of a command (RESP2 array of bulk strings)."""
    packed: bytes = pack_command(parts)  # type: ignore[arg-type]  # its stub knows tuples of one element only
    return packed
