"""A Lua script and the digest that Redis knows it by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec


def bulk(value: bytes) -> bytes:
    """A part of a command: a bulk string of RESP2 (https://valkey.io/topics/protocol/)."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


class ScriptCall(msgspec.Struct, frozen=True):
    """What a script is called with: the number of its keys, the keys and the arguments, each as ``bulk`` makes it.

    ``parts`` counts all of these, ``key`` is one of the keys: in a cluster it decides where the call goes.
    """

    parts: int
    packed: bytes
    key: bytes


def script_call(keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> ScriptCall:
    """A call with these keys, of which there is at least one, and arguments."""
    values = [each if isinstance(each, bytes) else str(each).encode() for each in args]
    packed = b"".join([bulk(each) for each in (b"%d" % len(keys), *keys, *values)])
    return ScriptCall(1 + len(keys) + len(values), packed, keys[0])


class Script:
    """One script; ``sha`` is what EVALSHA takes, the SHA-1 of the source (https://valkey.io/commands/evalsha/)."""

    __slots__ = ("_eval", "_evalsha", "_heads", "name", "sha", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._heads: dict[int, bytes] = {}  # by the parts of a call, of which there are few kinds
        self._eval = bulk(b"EVAL") + bulk(source.encode())
        self._evalsha = bulk(b"EVALSHA") + bulk(self.sha.encode())

    def by_digest(self, call: ScriptCall) -> bytes:
        """The bytes of a command that runs the script, for a server that has it."""
        head = self._heads.get(call.parts)
        if head is None:
            head = self._heads[call.parts] = b"*%d\r\n%b" % (call.parts + 2, self._evalsha)
        return head + call.packed

    def by_source(self, call: ScriptCall) -> bytes:
        """The same for a server that does not: it brings the source along."""
        return b"*%d\r\n%b%b" % (call.parts + 2, self._eval, call.packed)

    def __repr__(self) -> str:
        return f"Script({self.name!r}, {self.sha[:8]})"
