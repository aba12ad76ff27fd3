"""W3C trace context and request ids: what ties a request to the caller's trace and to our log line.

Implements Trace Context level 1 (https://www.w3.org/TR/trace-context-1/). The gateway takes part in a trace, it records
no spans: it keeps the caller's sampling decision, and starts unsampled traces where there is none.

Invariant: whatever bytes a client sends, the values here are well-formed and bounded; nothing raises.
"""

from __future__ import annotations

import re
from random import getrandbits

import msgspec

TRACESTATE_MAX_BYTES = 512
"""How much of a tracestate is passed on; the most that the specification asks for (section 3.3.1.5)."""

_TRACESTATE_LONG_MEMBER_BYTES = 128  # members beyond this go first when a list is cut (section 3.3.1.5)

_FIELDS = rb"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"  # all-zero ids are invalid
_VERSION_00 = re.compile(rb"00" + _FIELDS)
_LATER_VERSION = re.compile(rb"(?!00|ff)[0-9a-f]{2}" + _FIELDS + rb"(?:-.*)?", re.DOTALL)  # may append fields
_PRINTABLE = re.compile(rb"[\t\x20-\x7e]*")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """The trace that a request belongs to.

    ``trace_id`` is 32 lower-case hex digits, never all zero. ``parent_id`` is the caller's span, 16 such digits, or
    ``""`` where the trace starts here. ``flags`` is 0 or 1 (sampled); other bits are reserved and never passed on.
    ``tracestate`` is ready to be sent upstream, at most TRACESTATE_MAX_BYTES; empty: send no such header.
    """

    trace_id: str
    parent_id: str = ""
    flags: int = 0
    tracestate: bytes = b""

    def upstream_header(self) -> bytes:
        """The value of ``traceparent`` for one call to a backend, with a new span id each time."""
        return b"00-%b-%016x-%02x" % (self.trace_id.encode(), getrandbits(64) or 1, self.flags)


def trace_from(traceparent: bytes | None, tracestate: bytes | None = None) -> TraceContext | None:
    """The trace of a request from its headers; None where ``traceparent`` is missing or invalid.

    Several ``traceparent`` headers are invalid: pass None. Several ``tracestate`` headers are one list: pass them
    joined by commas. Without a valid ``traceparent`` the ``tracestate`` is ignored (section 3.2 and 3.3).
    """
    if traceparent is None:
        return None
    match = _VERSION_00.fullmatch(traceparent) or _LATER_VERSION.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, parent_id, flags = match.groups()
    state = _bounded_tracestate(tracestate) if tracestate else b""
    return TraceContext(trace_id.decode(), parent_id.decode(), int(flags, 16) & 1, state)


def request_id_from(header: bytes | None) -> str:
    """The caller's ``x-request-id`` where it is 1-128 of ``[A-Za-z0-9._-]``, else ``""``."""
    return header.decode() if header is not None and _REQUEST_ID.fullmatch(header) else ""


def new_trace() -> TraceContext:
    """A trace that starts here."""
    return TraceContext("%032x" % (getrandbits(128) or 1))


def new_request_id() -> str:
    """``req_`` and 32 random hex digits."""
    return "req_%032x" % getrandbits(128)


def _bounded_tracestate(tracestate: bytes) -> bytes:
    """Cut to the bound by whole members: long ones first, then from the right, as section 3.3.1.5 says."""
    if _PRINTABLE.fullmatch(tracestate) is None:
        return b""
    if len(tracestate) <= TRACESTATE_MAX_BYTES:
        return tracestate
    members = [member for member in tracestate.split(b",") if len(member) <= _TRACESTATE_LONG_MEMBER_BYTES]
    size = 0
    for kept, member in enumerate(members):
        size += len(member) + 1
        if size - 1 > TRACESTATE_MAX_BYTES:
            return b",".join(members[:kept])
    return b",".join(members)
