"""How the usage ledger lies in Redis: the fields of a day's hash, and those of an event in a tenant's stream. Pure.

The script that settles a call writes both at the moment of settling; readers decode them here.
Every settled call is written once, a call without any limit too; a refused call is not.

A day's hash, ``names.usage(tenant, "2026-11-22")`` with the UTC day on which the calls ended, counts with HINCRBY in
fields ``KEY|SCENARIO|BACKEND|WHAT``. No name holds a ``|``: they are DNS-1123 subdomains. BACKEND is empty where no
backend answered. WHAT is one of ``COUNTS``, in this order:

    requests   calls, +1 each
    input      input tokens, cached ones included
    cached     input tokens that the backend had cached
    output     output tokens
    cost       nano-USD
    estimated  calls whose tokens the backend did not report
    hits       calls whose answer was kept, or came of another's call: they used no tokens

A count of 0 need not be written. The hash expires the retention after the last write.

The stream, ``names.events(tenant)``, gets one entry per call with ``XADD key MAXLEN ~ cap *``: the fields
``EVENT_FIELDS``, always all of them and in this order, which lets the server store their names once. Entries are only
ever removed by trimming from the old end (no XDEL): lost events are counted from that. The stream, too, expires the
retention after the last write. A cap of 0 turns the stream off, not the hash.

    id         the lease id, by which a reader knows an event that it has had before
    key, scenario, backend, input, cached, output, cost   as in the hash
    estimated  1 or 0
    hit        1 or 0, as hits
    variant    base or canary; absent where an earlier release wrote it, which had no other than the base
    status     the HTTP status of the call, 499 where the client left

The time of an event is in its stream id, ``MILLISECONDS-SEQUENCE`` since the Unix epoch: when the call was settled,
which is when it ended unless Redis could not be reached then.
Readers ignore fields that they do not know and take an absent number as 0, so that two releases can run side by side.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from gateway.model import Frozen

SEPARATOR: Final = b"|"
COUNTS: Final = (b"requests", b"input", b"cached", b"output", b"cost", b"estimated", b"hits")
"""What a day's hash counts; the last part of a field."""

EVENT_FIELDS: Final = (
    b"id",
    b"key",
    b"scenario",
    b"backend",
    b"status",
    b"input",
    b"cached",
    b"output",
    b"cost",
    b"estimated",
    b"hit",
    b"variant",
)
"""The fields of an event, in the order in which they are written."""


class UsageCounts(Frozen, frozen=True):
    """What a group of calls used. ``cost_nano_usd`` is nano-USD, the rest are calls and tokens; all >= 0."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    estimated_requests: int = 0
    cached_requests: int = 0

    def __add__(self, other: UsageCounts) -> UsageCounts:
        return UsageCounts(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_nano_usd=self.cost_nano_usd + other.cost_nano_usd,
            estimated_requests=self.estimated_requests + other.estimated_requests,
            cached_requests=self.cached_requests + other.cached_requests,
        )


class UsageOf(Frozen, frozen=True):
    """Whose usage a count is: names; ``backend`` is empty where none answered."""

    key: str
    scenario: str
    backend: str


class UsageEvent(Frozen, frozen=True):
    """One settled call. ``stream_id`` is its place in the tenant's stream, ``id`` its lease."""

    tenant: str
    stream_id: str
    id: str
    time_ms: int  # Unix milliseconds by the clock of the server: when it was settled
    key: str
    scenario: str
    backend: str
    status: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    estimated: bool
    cached: bool = False
    variant: str = "base"


def day_name(day: datetime.date) -> str:
    """The name of a UTC day in a key: ``2026-11-22``."""
    return day.isoformat()


def encode_field(of: UsageOf, what: bytes) -> bytes:
    """A field of a day's hash."""
    return SEPARATOR.join((of.key.encode(), of.scenario.encode(), of.backend.encode(), what))


def decode_day(fields: Mapping[bytes, bytes]) -> dict[UsageOf, UsageCounts]:
    """A day's hash, by whose it is. Fields of another form are left out."""
    numbers: dict[UsageOf, dict[bytes, int]] = {}
    for field, value in fields.items():
        parts = field.split(SEPARATOR)
        if len(parts) == 4 and parts[3] in COUNTS:
            key, scenario, backend = (part.decode(errors="replace") for part in parts[:3])
            numbers.setdefault(UsageOf(key=key, scenario=scenario, backend=backend), {})[parts[3]] = int(value)
    return {of: _counts(given) for of, given in numbers.items()}


def _counts(given: Mapping[bytes, int]) -> UsageCounts:
    requests, in_, cached, out, cost, estimated, hits = (given.get(what, 0) for what in COUNTS)
    return UsageCounts(
        requests=requests,
        input_tokens=in_,
        cached_input_tokens=cached,
        output_tokens=out,
        cost_nano_usd=cost,
        estimated_requests=estimated,
        cached_requests=hits,
    )


def encode_event(event: UsageEvent) -> list[bytes]:
    """Fields and values of an event, alternating, as XADD takes them."""
    values: tuple[str | int, ...] = (
        event.id,
        event.key,
        event.scenario,
        event.backend,
        event.status,
        event.input_tokens,
        event.cached_input_tokens,
        event.output_tokens,
        event.cost_nano_usd,
        int(event.estimated),
        int(event.cached),
        event.variant,
    )
    return [part for name, value in zip(EVENT_FIELDS, values, strict=True) for part in (name, str(value).encode())]


def decode_event(tenant: str, stream_id: bytes, fields: Sequence[bytes]) -> UsageEvent:
    """An entry of the stream; ``fields`` alternate names and values. Raises ValueError where a number is none."""
    given = dict(_pairs(fields))
    names = {name: given.get(name.encode(), b"").decode(errors="replace") for name in _NAMES}
    numbers = {name: int(given.get(name.encode(), b"0")) for name in _NUMBERS}
    place = stream_id.decode()
    return UsageEvent(
        tenant=tenant,
        stream_id=place,
        time_ms=int(place.partition("-")[0]),
        status=numbers["status"],
        input_tokens=numbers["input"],
        cached_input_tokens=numbers["cached"],
        output_tokens=numbers["output"],
        cost_nano_usd=numbers["cost"],
        estimated=numbers["estimated"] != 0,
        cached=numbers["hit"] != 0,
        variant=given.get(b"variant", b"base").decode(errors="replace"),
        **names,
    )


_NAMES: Final = ("id", "key", "scenario", "backend")
_NUMBERS: Final = ("status", "input", "cached", "output", "cost", "estimated", "hit")


def _pairs(fields: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    iterator = iter(fields)
    return zip(iterator, iterator, strict=True)
