"""Trace context as the W3C specification has it, and request ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import TraceContext, new_request_id, new_trace, request_id_from, trace_from
from gateway.telemetry.trace import TRACESTATE_MAX_BYTES

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
VALID = f"00-{TRACE_ID}-{PARENT_ID}-01".encode()
HEADER = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])")


def trace_of(traceparent: bytes, tracestate: bytes | None = None) -> TraceContext:
    """The trace of headers that give one."""
    trace = trace_from(traceparent, tracestate)
    assert trace is not None
    return trace


def test_a_valid_traceparent_is_taken_over() -> None:
    """Trace id, parent and the sampling decision come from the caller."""
    assert trace_of(VALID, b"vendor=1") == TraceContext(TRACE_ID, PARENT_ID, 1, b"vendor=1")


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        b"",
        b"00",
        b"00-" + b"0" * 32 + b"-" + PARENT_ID.encode() + b"-01",
        b"00-" + TRACE_ID.encode() + b"-" + b"0" * 16 + b"-01",
        VALID.upper(),
        VALID + b"-extra",
        VALID + b"-",
        VALID + b"\n",
        b" " + VALID,
        VALID[:-1],
        VALID[:-2] + b"0g",
        b"ff" + VALID[2:],
        b"cc" + VALID[2:] + b"extra",
        b"0" + VALID[1:54],
        VALID.replace(b"-", b"_"),
        VALID + b"," + VALID,
        b"00-\xd9\xa0" + VALID[5:],
    ],
)
def test_an_invalid_traceparent_is_no_trace(traceparent: bytes | None) -> None:
    """The whole header is ignored, tracestate with it."""
    assert trace_from(traceparent, b"vendor=1") is None


def test_a_new_trace_is_not_sampled() -> None:
    """It starts here, each time with an id of its own."""
    trace = new_trace()
    assert re.fullmatch("[0-9a-f]{32}", trace.trace_id)
    assert trace.trace_id != new_trace().trace_id
    assert (trace.parent_id, trace.flags, trace.tracestate) == ("", 0, b"")
    _assert_sendable(trace)


@pytest.mark.parametrize("traceparent", [b"01" + VALID[2:], b"cc" + VALID[2:] + b"-what-the-future-will-be-like"])
def test_a_later_version_is_read_as_far_as_it_is_known(traceparent: bytes) -> None:
    """Section 3.2.4 of the specification; what goes upstream is version 00 again."""
    trace = trace_of(traceparent)
    assert (trace.trace_id, trace.parent_id, trace.flags) == (TRACE_ID, PARENT_ID, 1)
    assert trace.upstream_header().startswith(b"00-")


@pytest.mark.parametrize(("flags", "kept"), [(b"00", 0), (b"01", 1), (b"02", 0), (b"09", 1), (b"fe", 0), (b"ff", 1)])
def test_only_the_sampled_flag_is_passed_on(flags: bytes, kept: int) -> None:
    """Other flags are reserved and must be zero."""
    trace = trace_of(VALID[:-2] + flags)
    assert trace.flags == kept
    assert trace.upstream_header().endswith(b"-0%d" % kept)


def test_each_upstream_call_is_a_span_of_its_own() -> None:
    """The trace stays, the span id is new for each attempt."""
    trace = trace_of(VALID)
    found = [HEADER.fullmatch(trace.upstream_header()) for _ in range(2)]
    traces = [match.group(1) for match in found if match]
    spans = [match.group(2) for match in found if match]
    assert traces == [TRACE_ID.encode()] * 2
    assert len({*spans, PARENT_ID.encode()}) == 3


def test_a_long_tracestate_loses_long_members_first_and_then_the_last() -> None:
    """Section 3.3.1.5: members over 128 characters go first, then whole members from the right."""
    long_member = b"long=" + b"x" * 200
    short = [b"k%02d=" % number + b"v" * 96 for number in range(6)]
    state = trace_of(VALID, b",".join([long_member, *short])).tracestate
    assert state == b",".join(short[:5])
    assert len(state) <= TRACESTATE_MAX_BYTES
    just_fits = b"a=" + b"x" * (TRACESTATE_MAX_BYTES - 2)
    assert trace_of(VALID, just_fits).tracestate == just_fits
    assert trace_of(VALID, just_fits + b"x").tracestate == b""


def test_a_tracestate_that_is_no_header_text_is_dropped() -> None:
    """Nothing that could break a header goes upstream."""
    assert trace_of(VALID, b"a=1\r\nx-evil: 1").tracestate == b""
    assert trace_of(VALID, b"a=\xff").tracestate == b""


@given(st.binary(max_size=200), st.binary(max_size=1000))
def test_no_header_breaks_the_parser(traceparent: bytes, tracestate: bytes) -> None:
    """Whatever is sent, the result is well-formed, bounded and sendable."""
    trace = trace_from(traceparent, tracestate)
    if trace is not None:
        _assert_sendable(trace)


@given(st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,9})?", fullmatch=True), st.binary())
def test_well_formed_headers_keep_their_ids(traceparent: bytes, tracestate: bytes) -> None:
    """A header of the right form is used unless version, ids or length forbid it."""
    trace = trace_from(traceparent, tracestate)
    version, trace_id, parent_id = traceparent[:2], traceparent[3:35], traceparent[36:52]
    valid = version != b"ff" and trace_id.strip(b"0") and parent_id.strip(b"0")
    if valid and (version != b"00" or len(traceparent) == 55):
        assert trace is not None
        _assert_sendable(trace)
        assert (trace.trace_id.encode(), trace.parent_id.encode()) == (trace_id, parent_id)
    else:
        assert trace is None


def _assert_sendable(trace: TraceContext) -> None:
    assert HEADER.fullmatch(trace.upstream_header())
    assert len(trace.tracestate) <= TRACESTATE_MAX_BYTES
    assert re.fullmatch(rb"[\t\x20-\x7e]*", trace.tracestate)


@pytest.mark.parametrize("header", [b"a", b"A.b_c-9", b"x" * 128])
def test_a_well_formed_request_id_is_kept(header: bytes) -> None:
    """The caller finds its own id in our log."""
    assert request_id_from(header) == header.decode()


@pytest.mark.parametrize("header", [None, b"", b"x" * 129, b"a b", b"a\n", b"\xc3\xa4", b'{"a":1}', b"a/b"])
def test_any_other_request_id_is_none(header: bytes | None) -> None:
    """Nothing unchecked gets into logs and response headers."""
    assert request_id_from(header) == ""


def test_a_new_request_id_is_recognisable() -> None:
    """And no two are the same."""
    made = new_request_id()
    assert re.fullmatch("req_[0-9a-f]{32}", made)
    assert made != new_request_id()


@given(st.binary(max_size=300))
def test_a_request_id_is_always_well_formed(header: bytes) -> None:
    """For any bytes: or there is none."""
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,128}", request_id_from(header))
