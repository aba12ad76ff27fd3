"""The caller's address behind proxies: the header is believed as far as it was written by who is trusted."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import ClientAddress

TRUSTED = ClientAddress([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", PEER),
        (b"203.0.113.7", "203.0.113.7"),
        (b"1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (b"1.1.1.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (b"1.1.1.1,10.0.0.3,10.0.0.2", "1.1.1.1"),
        (b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (b"203.0.113.7:4711", "203.0.113.7"),
        (b"[2001:db8::1]:4711", "2001:db8::1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"203.0.113.7, fd00::1", "203.0.113.7"),
        (b"203.0.113.7, ::ffff:10.0.0.2", "203.0.113.7"),
        (b"203.0.113.7, unknown", PEER),
        (b"203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
        (b"garbage \xff", PEER),
        (b",,,", PEER),
    ],
)
def test_read_from_the_right(header: bytes, expected: str) -> None:
    """The first address from the right that is no trusted proxy; what cannot be read ends the search."""
    assert TRUSTED.of(PEER, header) == expected


def test_nobody_else_is_believed() -> None:
    """A peer that is no trusted proxy may write what it wants."""
    assert TRUSTED.of("198.51.100.1", b"10.9.9.9") == "198.51.100.1"
    assert TRUSTED.of("", b"10.9.9.9") == ""


def test_without_trusted_proxies_the_header_is_not_needed() -> None:
    """So that it need not be looked for."""
    assert not ClientAddress([]).needs_header
    assert TRUSTED.needs_header
    assert ClientAddress([]).of(PEER, b"1.1.1.1") == PEER


def test_the_header_has_a_bound() -> None:
    """Only the last hops of a long chain are looked at."""
    assert TRUSTED.of(PEER, b"1.1.1.1," + b"10.0.0.2," * 5000 + b"10.0.0.3") == "10.0.0.2"


@given(st.lists(st.ip_addresses().map(str) | st.text(max_size=5), max_size=6), st.ip_addresses(v=4).map(str))
def test_what_a_client_writes_itself_never_counts(forged: list[str], client: str) -> None:
    """Whatever stands left of the address that a trusted proxy added changes nothing."""
    if ipaddress.ip_address(client) in ipaddress.ip_network("10.0.0.0/8"):
        return
    header = ", ".join([*forged, client]).encode("latin-1", "replace")
    assert TRUSTED.of(PEER, header) == client
