"""A Lua script and the digest that Redis knows it by."""

from __future__ import annotations

import hashlib


class Script:
    """One script; ``sha`` is what EVALSHA takes, the SHA-1 of the source (https://valkey.io/commands/evalsha/)."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r}, {self.sha[:8]})"
