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
from typing import Final

import msgspec

from gateway.cache.canonical import Canonical, Unclear
from gateway.fingerprint import digest_of
from gateway.model import CachePolicy, ChatRequest, Frozen, Scenario, SimilarityPolicy

_VERSION = b"1\0"
KEPT: Final = frozenset({"chat", "embeddings", "rerank"})
"""What is kept: what the same question has the same answer to, and that is small."""

TEXT_CHARS_MAX = 8192
"""Longest question that is compared: what a model of embeddings takes is about that."""

_TRAVEL = frozenset({"stream", "stream_options"})
_encode = msgspec.json.Encoder().encode


class Question(Frozen, frozen=True):
    """The last user message of a request: the one thing that may differ between similar ones."""

    text: str
    bucket: bytes  # 32 bytes: the digest of all else, and of who makes the vectors
    policy: SimilarityPolicy


Writing = tuple[object, ...]
"""How a call was written: whose it is and all that its ``Way`` is made of, byte for byte."""


class Way(Frozen, frozen=True):
    """What is known of a call that may be answered from the cache: whose it is, what it asks, and what it allows."""

    tenant: str
    scenario: str
    policy: CachePolicy
    digest: bytes  # of the answer: 32 bytes
    flight: bytes  # of the call while it is made: what shares one answer may still not share one call
    stream: bool
    reads: bool = True  # False: only a new answer will do
    question: Question | None = None  # where a similar one will do
    writing: Writing = ()


def writing_of(
    tenant: str, scenario: Scenario, request: ChatRequest, cache_control: bytes, route: Sequence[str] = ()
) -> Writing:
    """What ``Ways.of`` makes a way of, for the price of a copy: equal only where all of it is."""
    fields = request.fields
    return (
        tenant,
        scenario.fingerprint,
        request.model,
        request.operation,
        tuple(fields),
        b",".join(fields.values()),  # JSON values, as many as names: no other ones are written so
        request.stream,
        request.choices,
        request.output_limit,
        cache_control,
        *route,
    )


class Ways:
    """Makes keys. Not for several threads."""

    def __init__(self) -> None:
        self._canonical = Canonical()

    def of(
        self,
        tenant: str,
        scenario: Scenario,
        request: ChatRequest,
        cache_control: bytes,
        route: Sequence[str] = (),
        writing: Writing = (),
    ) -> Way | None:
        """The way of a call; None for one past the cache: ``no-store``, several choices, JSON without one form.

        ``route`` says which of the scenario's backends may answer, where conditions have a say in that. ``writing`` is
        of all these, for the way to be found by; empty: it is not.
        """
        policy = scenario.cache
        assert policy is not None, "asked for a scenario without a cache"
        directives = _directives(cache_control) if cache_control else ()
        if request.choices != 1 or "no-store" in directives or request.operation not in KEPT:
            return None
        try:
            asked = (
                (request.model, *route) if request.operation == "chat" else (request.model, request.operation, *route)
            )
            digest = self.digest(tenant, scenario, asked, request.fields)
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
            question=None
            if policy.similar is None or request.operation != "chat"
            else self._question(tenant, scenario, request, route),
            writing=writing,
        )

    def _question(self, tenant: str, scenario: Scenario, request: ChatRequest, route: Sequence[str]) -> Question | None:
        """What is asked, and the digest of all else; None where the last user message is no text. Raises Unclear."""
        policy = None if scenario.cache is None else scenario.cache.similar
        found = None if policy is None else _split(request.fields["messages"])
        if policy is None or found is None or not found[0] or len(found[0]) > TEXT_CHARS_MAX:
            return None
        text, rest = found
        digest = self.digest(tenant, scenario, (request.model, *route), {**request.fields, "messages": rest})
        bucket = hashlib.sha256(b"similar" + digest + digest_of(policy.backend)).digest()
        return Question(text=text, bucket=bucket, policy=policy)

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


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def _split(messages: msgspec.Raw | bytes) -> tuple[str, bytes] | None:
    """The text of the last user message, and all messages without it; None where it is no plain text."""
    try:
        items = _decode_items(messages)
        for place in range(len(items) - 1, -1, -1):
            message = _decode_message(items[place])
            if message.role == "user":
                text = _decode_text(message.content)
                items[place] = msgspec.Raw(_encode(_decode_members(items[place]) | {"content": msgspec.Raw(b"0")}))
                return text, _encode(items)
    except (msgspec.DecodeError, RecursionError):
        return None
    return None


def _flight(digest: bytes, request: ChatRequest) -> bytes:
    """Streams and whole answers are not shared with each other, nor calls that a budget lets say less than others."""
    limit = -1 if request.output_limit is None else request.output_limit
    return b"%b%d." % (b"s" if request.stream else b"w", limit) + digest


def _directives(cache_control: bytes) -> tuple[str, ...]:
    """The directives of a Cache-Control field, in small letters and without spaces (RFC 9111, 5.2)."""
    text = cache_control.decode("latin-1").lower()
    return tuple(part.replace(" ", "").replace("\t", "") for part in text.split(","))
