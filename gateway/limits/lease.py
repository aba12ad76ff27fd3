"""What a call holds while it runs: a lease over all its limits, settled exactly once.

Invariant: ``settle`` takes effect once; whoever comes later changes nothing. That of a whole answer is settled once the
answer is there, that of a stream after the last byte, the disconnect or the failure, whichever comes. Settling never
waits: what there is to tell is queued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.errors import BudgetExceeded
from gateway.limits.text import DEGRADED, DEGRADED_LINES, Headers, duration, level_headers
from gateway.limits.wire import refilled_ms, worst_of
from gateway.model import Frozen, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.limits.binding import Bound
    from gateway.limits.local import Hold
    from gateway.limits.wire import AdmitCall, AdmitReply, LimitSet
    from gateway.model import ChatRequest


class End(Frozen, frozen=True):
    """How a call ended. ``usage`` None: it used nothing, though the request counts.

    ``status`` is as an operator should read it; with ``keep`` the reservation stays charged as it is. ``answers`` is
    how many were had of those that the call might take. ``cached``: the answer was kept, or came of another's call.
    ``variant`` is the scenario's. ``learns``: what was used says something of calls to come.
    """

    usage: Usage | None = None
    cost_nano_usd: int = 0
    backend: str = ""
    status: int = 200
    keep: bool = False
    answers: int = 1
    cached: bool = False
    variant: str = "base"
    learns: bool = True


NOTHING_USED = End()


class Lease:
    """The lease of a call that nothing limits and nobody counts."""

    __slots__ = ("is_settled", "settled_usage")

    reserved: Usage | None = None
    """What was reserved for the call, as usage; None where nothing was."""

    def __init__(self) -> None:
        self.is_settled = False
        self.settled_usage: Usage | None = None

    def settle(self, end: End) -> bool:
        """End the lease; False if it had ended before."""
        if self.is_settled:
            return False
        self.is_settled = True
        self.settled_usage = end.usage
        return True

    def headers(self) -> Headers:
        """Header fields of the answer: what was left when the call was admitted."""
        return ()

    def header_lines(self) -> bytes:
        """The same fields as they are sent, each with its line break."""
        return b""

    def bounded(self, estimate: Usage) -> Usage:
        """An estimate of what one answer used, no higher than what it can have used at most."""
        return estimate


class CountedLease(Lease):
    """The lease of a call that nothing limits, whose end is told to ``tell``."""

    __slots__ = ("_tell", "key", "kind", "scenario")

    def __init__(self, kind: LimitSet, scenario: str, key: str, tell: Callable[[CountedLease, End], None]) -> None:
        self.is_settled = False
        self.settled_usage = None
        self.kind = kind
        self.scenario = scenario
        self.key = key
        self._tell = tell

    def settle(self, end: End) -> bool:
        """See Lease."""
        if self.is_settled:
            return False
        self.is_settled = True
        self.settled_usage = end.usage
        self._tell(self, end)
        return True


class AdmittedLease(Lease):
    """The lease of a call that its limits admitted; ``reply`` None: without the shared levels, which is degraded.

    Its end is told to ``tell``.
    """

    __slots__ = ("_tell", "admitted_ms", "bound", "call", "hold", "key", "output_limit", "reply", "taken")

    def __init__(self, bound: Bound, call: AdmitCall, tell: Callable[[AdmittedLease, End], None]) -> None:
        self.is_settled = False
        self.settled_usage = None
        self.call = call
        self.key = bound.key
        self.admitted_ms = 0  # Unix milliseconds, of the server's clock where it was asked
        self.reply: AdmitReply | None = None
        self.hold: Hold | None = None
        self._tell = tell
        self.bound = bound
        self.output_limit: int | None = None
        self.taken: Usage | None = None  # what was reserved without the shared levels

    def settle(self, end: End) -> bool:
        """See Lease."""
        if self.is_settled:
            return False
        self.is_settled = True
        self.settled_usage = end.usage
        self._tell(self, end)
        return True

    @property
    def reserved(self) -> Usage | None:  # type: ignore[override]  # made only for the few who ask
        """See Lease."""
        reply = self.reply
        if reply is None:
            return self.taken
        return Usage(input_tokens=reply.input_estimate, output_tokens=reply.output_estimate, estimated=True)

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """The request with the output limit of the lease. Raises BudgetExceeded where it cannot be bounded by it."""
        limit = self.output_limit
        if limit is None:
            return request
        if request.operation != "chat" and limit < worst_of(self.call):  # none of them can be told to say less
            self.settle(End(status=BudgetExceeded.status))
            raise BudgetExceeded("What is left of a budget has no room for this request.")
        asked = request.max_output_tokens
        least = limit if asked is None or asked > limit else asked
        return msgspec.structs.replace(request, output_limit=limit, max_output_tokens=least)

    def headers(self) -> Headers:
        """See Lease."""
        return DEGRADED if self.reply is None else headers_of(self.bound, self.reply)

    def header_lines(self) -> bytes:
        """See Lease. In one piece and without further calls, since every answer has them."""
        reply = self.reply
        if reply is None:
            return DEGRADED_LINES
        used, untils = reply.used, reply.shared.untils
        text = ""
        for places, middle in self.bound.lines:
            place, capacity, refill, head = places[0]
            left = capacity - used[place]
            for each in places[1:]:
                if each[1] - used[each[0]] < left:
                    place, capacity, refill, head = each
                    left = capacity - used[place]
            reset = untils[place] if refill is None else refilled_ms(used[place], untils[place], refill)
            until = f"{reset}ms" if reset < 1000 else duration(reset)
            text += f"{head}{left if left > 0 else 0}{middle}{until}\r\n"
        return text.encode()

    def bounded(self, estimate: Usage) -> Usage:
        """See Lease: budgets reserved that much, and a guess alone must not exceed them."""
        call = self.call
        most = worst_of(call)
        if self.output_limit is not None:
            most = min(most, self.output_limit)
        return Usage(
            input_tokens=min(estimate.input_tokens, call.input_upper // call.answers),
            output_tokens=min(estimate.output_tokens, most * (call.choices // call.answers)),
            estimated=True,
        )


def headers_of(bound: Bound, reply: AdmitReply) -> Headers:
    """What is left, from the tightest limit of each unit."""
    fields: Headers = ()
    remaining = reply.remaining
    for unit, places in bound.shown:
        place = min(places, key=remaining.__getitem__)
        capacity, left = bound.kind.capacities[place], remaining[place]
        fields += level_headers(unit, capacity, left if left > 0 else 0, reply.reset_ms(place))
    return fields
