"""Which calls are the same: the key of an answer. Pure.

Invariants:
- The tenant is an argument of every key; no two tenants have a key in common.
- Two requests have the same key only if nothing that may change the answer differs: tenant, compiled scenario, the
  name that was asked for, and every field as it would be sent. Left out are ``stream`` and ``stream_options``, which
  say how an answer travels, and the fields that the scenario says to ignore.
- Requests that differ in nothing but the writing of their JSON have the same key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from gateway.cache.canonical import Canonical, Unclear
from gateway.model import CachePolicy, ChatRequest, Frozen, Scenario

_VERSION = b"1\0"
_TRAVEL = frozenset({"stream", "stream_options"})
_encode = msgspec.json.Encoder().encode


class Way(Frozen, frozen=True):
    """What is known of a call that may be answered from the cache: whose it is, what it asks, and what it allows."""

    tenant: str
    scenario: str
    policy: CachePolicy
    digest: bytes  # of the answer: 32 bytes
    flight: bytes  # of the call while it is made: what shares one answer may still not share one call
    stream: bool
    reads: bool = True  # False: only a new answer will do


class Ways:
    """Makes keys. Not for several threads."""

    def __init__(self) -> None:
        self._canonical = Canonical()

    def of(
        self, tenant: str, scenario: Scenario, request: ChatRequest, cache_control: bytes, route: Sequence[str] = ()
    ) -> Way | None:
        """The way of a call; None for one past the cache: ``no-store``, several choices, JSON without one form.

        ``route`` says which of the scenario's backends may answer, where conditions have a say in that.
        """
        policy = scenario.cache
        assert policy is not None, "asked for a scenario without a cache"
        directives = _directives(cache_control) if cache_control else ()
        if request.choices != 1 or "no-store" in directives:
            return None
        try:
            digest = self.digest(tenant, scenario, (request.model, *route), request.fields)
        except Unclear:
            return None
        return Way(
            tenant=tenant,
            scenario=scenario.name,
            policy=policy,
            digest=digest,
            flight=_flight(digest, request),
            stream=request.stream,
            reads="no-cache" not in directives and "max-age=0" not in directives,
        )

    def digest(
        self, tenant: str, scenario: Scenario, asked: Sequence[str], fields: Mapping[str, msgspec.Raw | bytes]
    ) -> bytes:
        """The digest of what is asked. Raises Unclear."""
        policy = scenario.cache
        ignored = _TRAVEL if policy is None or not policy.ignored else _TRAVEL | policy.ignored
        form = self._canonical.form
        whole = hashlib.sha256(_VERSION + scenario.fingerprint)
        parts = [_encode((tenant, asked))]
        for name in sorted(fields):
            if name not in ignored and name != "model":
                parts += (b"," + _encode(name) + b":", form(fields[name]))
        whole.update(b"".join(parts))
        return whole.digest()


def _flight(digest: bytes, request: ChatRequest) -> bytes:
    """Streams and whole answers are not shared with each other, nor calls that a budget lets say less than others."""
    limit = -1 if request.output_limit is None else request.output_limit
    return b"%b%d." % (b"s" if request.stream else b"w", limit) + digest


def _directives(cache_control: bytes) -> tuple[str, ...]:
    """The directives of a Cache-Control field, in small letters and without spaces (RFC 9111, 5.2)."""
    text = cache_control.decode("latin-1").lower()
    return tuple(part.replace(" ", "").replace("\t", "") for part in text.split(","))
