"""Usage in a real Valkey, written with a plain client in the form that the gateway's script writes it."""

from __future__ import annotations

import datetime

import redis as redis_py

from gateway.redis import names
from gateway.redis.ledger_format import UsageEvent, UsageOf, encode_event, encode_field

Valkey = redis_py.Redis


def write_events(valkey: Valkey, tenant: str, first: int, last: int, *, maxlen: int = 1_000_000) -> None:
    """Events with the ids ``first`` to ``last``, trimmed exactly, so that tests can count."""
    for number in range(first, last + 1):
        event = UsageEvent(
            tenant=tenant,
            stream_id="",
            id=str(number),
            time_ms=0,
            key="ci",
            scenario="chat",
            backend="qwen",
            status=200,
            input_tokens=number,
            cached_input_tokens=0,
            output_tokens=1,
            cost_nano_usd=5,
            estimated=False,
        )
        parts = encode_event(event)
        fields = dict(zip(parts[::2], parts[1::2], strict=True))
        valkey.xadd(names.events(tenant), fields, maxlen=maxlen, approximate=False)  # type: ignore[arg-type]


def write_counts(valkey: Valkey, tenant: str, day: datetime.date, of: UsageOf, **counts: int) -> None:
    """Add to the counts of a day; named as in the hash."""
    for what, number in counts.items():
        valkey.hincrby(names.usage(tenant, day.isoformat()), encode_field(of, what.encode()), number)
