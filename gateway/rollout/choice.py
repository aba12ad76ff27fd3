"""Who gets the canary: pure but for the draw of a scenario that is not sticky.

Invariants: a sticky caller is on one side, in every process and at any time, for as long as the percent stays; a higher
percent only adds callers. The place of a caller depends on the scenario's name, so that no caller is always the first.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final

import msgspec

from gateway.model import Canary, ChatRequest, Principal

_PLACE_BITS: Final = 53  # what a float holds exactly, so that every place is below 1
_PLACES: Final = float(1 << _PLACE_BITS)
_decode_text = msgspec.json.Decoder(str).decode


def takes_part(canary: Canary, principal: Principal, request: ChatRequest) -> bool:
    """Whether this request goes to the canary."""
    share = canary.percent / 100
    if canary.sticky == "request":
        return random.random() < share  # noqa: S311  # a share of traffic, no secret
    return place(canary.scenario.name, *_caller(canary, principal, request)) < share


def place(*words: str) -> float:
    """Where these words lie in [0, 1): evenly spread, and the same in every process."""
    digest = hashlib.blake2b("\0".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return float(int.from_bytes(digest, "big") >> (64 - _PLACE_BITS)) / _PLACES


def _caller(canary: Canary, principal: Principal, request: ChatRequest) -> tuple[str, ...]:
    """What stays on one side; a user is one of a tenant, and a request without one goes by its key."""
    tenant = principal.tenant.name
    if canary.sticky == "tenant":
        return (tenant,)
    if canary.sticky == "user" and (user := _user(request)):
        return (tenant, "user", user)
    return (tenant, "key", principal.key.name)


def _user(request: ChatRequest) -> str:
    """The field ``user``; empty where it is no text."""
    raw = request.fields.get("user")
    if raw is None:
        return ""
    try:
        return _decode_text(raw)
    except msgspec.DecodeError:
        return ""
