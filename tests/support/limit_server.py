"""The limit scripts on a real server, with a clock that the test sets.

The scripts are the shipped ones but for one call: where they ask the server for its time they read a hash that the
test writes, so that windows turn, buckets fill and clocks go back without waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis

from gateway.limits import codec
from gateway.limits.scripts import LimitScripts, load_scripts
from gateway.limits.wire import (
    AdmitCall,
    AdmitReply,
    BoundLimit,
    Held,
    Invocation,
    Level,
    LevelsReply,
    LimitSet,
    RenewReply,
    ScriptOptions,
    SettleCall,
    SettleReply,
    VoidOutcome,
)
from gateway.model import Limit, LimitUnit, Price, Usage
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.script import Script, ScriptCall

TENANT: Final = "acme"
NOON_MS: Final = 1_795_348_800_000
"""2026-11-22 12:00:00 UTC."""

CHEAP: Final = Price(input_nano_usd=1_000_000, cached_input_nano_usd=0, output_nano_usd=2_000_000)
"""One nano-USD for a token of input, two for one of output."""


def limit(name: str, unit: LimitUnit, amount: int, per: Any = None, **more: Any) -> BoundLimit:
    """A limit of the tenant."""
    return BoundLimit(id=f"t:{name}", limit=Limit(name=name, unit=unit, per=per, amount=amount, **more))


def asking(lease_id: str, kind: LimitSet, **more: Any) -> AdmitCall:
    """A call that asks for admission, see ``LimitServer.admit``."""
    fields: dict[str, Any] = {
        "scenario": "chat",
        "backend": "qwen",
        "text_bytes": 100,
        "input_upper": 100,
        "output_cap": 50,
        "worst_output": 50,
        "price": CHEAP,
        **more,
    }
    return AdmitCall(lease_id=lease_id, kind=kind, **fields)


def ending(lease_id: str, kind: LimitSet, usage: Usage | None, **more: Any) -> SettleCall:
    """The end of a call, see ``LimitServer.settle``; when it was admitted and ended has to be told."""
    fields: dict[str, Any] = {
        "cost_nano": usage.input_tokens + 2 * usage.output_tokens if usage is not None else 0,
        "key": "ci",
        "scenario": "chat",
        "backend": "qwen",
        "status": 200,
        **more,
    }
    return SettleCall(lease_id=lease_id, kind=kind, usage=usage, **fields)


def unpacked(packed: bytes) -> list[bytes]:
    """The bulk strings of a packed call of a script."""
    values = []
    while packed:
        assert packed.startswith(b"$")
        size, _, rest = packed[1:].partition(b"\r\n")
        value, packed = rest[: int(size)], rest[int(size) :]
        assert packed.startswith(b"\r\n")
        values.append(value)
        packed = packed[2:]
    return values


def _invocation(call: ScriptCall) -> Invocation:
    count, *parts = unpacked(call.packed)
    return Invocation(tuple(parts[: int(count)]), tuple(parts[int(count) :]))


class LimitServer:
    """Runs the scripts and decodes what they answer."""

    def __init__(self, client: redis.Redis, scripts: LimitScripts) -> None:
        self.client: Any = client  # its types name every reply that any version may give
        self.options = ScriptOptions()
        self._scripts = scripts
        self.now_ms = NOON_MS
        self.set_time(NOON_MS)

    def set_time(self, now_ms: int) -> None:
        """Set the clock of the server."""
        self.now_ms = now_ms
        self.client.hset("clock", mapping={"s": now_ms // 1000, "us": now_ms % 1000 * 1000})

    def advance(self, ms: int) -> None:
        """Move the clock, also back."""
        self.set_time(self.now_ms + ms)

    def lose_everything(self) -> None:
        """What a server does that restarts empty."""
        self.client.flushall()
        self.set_time(self.now_ms)

    def admit(self, lease_id: str, limits: Sequence[BoundLimit], **more: Any) -> AdmitReply:
        """Ask for admission; 100 bytes of text, at most 100 tokens, output capped at 50, unless told otherwise."""
        return self.admit_together([asking(lease_id, LimitSet(TENANT, tuple(limits)), **more)])[0]

    def admit_together(self, calls: Sequence[AdmitCall]) -> list[AdmitReply]:
        """Ask for several admissions of one kind at once."""
        values = [value for call in calls for value in codec.admit_values(call)]
        invocation = _invocation(codec.pack_admit(calls, values, self.options))
        return codec.decode_admit(calls, self._run(self._scripts.admit, invocation))

    def settle(self, lease_id: str, limits: Sequence[BoundLimit], usage: Usage | None, **more: Any) -> SettleReply:
        """Settle a call of the key ``ci`` that was admitted now and ends now, unless told otherwise."""
        fields: dict[str, Any] = {"admitted_ms": self.now_ms, "ended_at": self.now_ms / 1000, **more}
        return self.settle_together([ending(lease_id, LimitSet(TENANT, tuple(limits)), usage, **fields)])

    def settle_together(self, calls: Sequence[SettleCall]) -> SettleReply:
        """Settle several calls of one kind at once."""
        return codec.decode_settle(self._run(self._scripts.settle, _invocation(codec.pack_settle(calls, self.options))))

    def void(self, lease_id: str, limits: Sequence[BoundLimit]) -> VoidOutcome:
        """Void an admission."""
        invocation = codec.encode_void(LimitSet(TENANT, tuple(limits)), lease_id, self.options)
        return codec.decode_void(self._run(self._scripts.void, invocation))

    def renew(self, *held: Held) -> RenewReply:
        """Renew the slots of calls."""
        return codec.decode_renew(held, self._run(self._scripts.renew, codec.encode_renew(TENANT, held, self.options)))

    def levels(self, limits: Sequence[BoundLimit]) -> LevelsReply:
        """Read levels."""
        given = tuple(limits)
        return codec.decode_levels(given, self._run(self._scripts.levels, codec.encode_read(TENANT, given)))

    def used(self, *limits: BoundLimit) -> tuple[int, ...]:
        """How much of each limit is in use."""
        return tuple(level.used for level in self.levels(limits).levels)

    def reset(self, limits: Sequence[BoundLimit]) -> LevelsReply:
        """Forget what was used."""
        given = tuple(limits)
        return codec.decode_levels(given, self._run(self._scripts.levels, codec.encode_reset(TENANT, given)))

    def restore(self, limits: Sequence[BoundLimit], levels: Sequence[Level], seen_ms: int) -> LevelsReply:
        """Restore levels that were seen."""
        given = tuple(limits)
        invocation = codec.encode_restore(TENANT, given, levels, seen_ms, "restored")
        return codec.decode_levels(given, self._run(self._scripts.levels, invocation))

    def _run(self, script: Script, invocation: Invocation) -> bytes:
        arguments = (len(invocation.keys), *invocation.keys, *invocation.args)
        try:
            reply = self.client.evalsha(script.sha, *arguments)
        except redis.exceptions.NoScriptError:
            reply = self.client.eval(script.source, *arguments)
        assert isinstance(reply, bytes)
        return reply


@contextmanager
def limit_server() -> Iterator[LimitServer]:
    """A server of its own, ended with the block."""
    server = EmbeddedValkey.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            yield LimitServer(client, _with_test_clock(load_scripts()))
    finally:
        server.stop()


def _with_test_clock(scripts: LimitScripts) -> LimitScripts:
    asked, read = "call('TIME')", "call('HMGET', 'clock', 's', 'us')"
    changed = {}
    for name in LimitScripts.__struct_fields__:
        script: Script = getattr(scripts, name)
        assert script.source.count(asked) == 1
        changed[name] = Script(name, script.source.replace(asked, read))
    return LimitScripts(**changed)
