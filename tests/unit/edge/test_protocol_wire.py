"""Rules of a request's head, and how refusals and responses look as bytes."""

from __future__ import annotations

import pytest

from gateway.edge.connections import ConnectionLimits
from gateway.edge.exchange import error_response
from gateway.edge.wire import Refusal, address_of, check_coding, check_head, split_target, without_upgrade
from gateway.errors import Overloaded

LIMITS = ConnectionLimits(max_header_bytes=1024, max_header_count=4)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (("10.0.0.1", 80), ("10.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        (("::ffff:10.0.0.1", 80, 0, 0), ("10.0.0.1", 80)),
        ("/run/socket", None),
        (None, None),
    ],
)
def test_addresses(value: object, address: tuple[str, int] | None) -> None:
    """An IPv4 client of a dual-stack listener is an IPv4 client: allow lists depend on it."""
    assert address_of(value) == address


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/v1/models", (b"/v1/models", "/v1/models", b"")),
        (b"/a%20b?x=%20&y", (b"/a%20b", "/a b", b"x=%20&y")),
        (b"/a?b?c", (b"/a", "/a", b"b?c")),
        (b"http://host:1/a?b", (b"/a", "/a", b"b")),
        (b"//host/a", (b"//host/a", "//host/a", b"")),
    ],
)
def test_targets(target: bytes, parts: tuple[bytes, str, bytes]) -> None:
    """What of a target is path and query."""
    assert split_target(target) == parts


@pytest.mark.parametrize("target", [b"http://", b"http:///a", b"http://a:99999/", b"a"])
def test_targets_that_are_none(target: bytes) -> None:
    """They are refused, as what cannot be parsed."""
    with pytest.raises(Refusal) as refusal:
        split_target(target)
    assert (refusal.value.error.status, refusal.value.error.code) == (400, "invalid_http")


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"chunked \t"])
def test_chunked_is_understood(coding: bytes) -> None:
    """In any case, with whitespace behind it."""
    check_coding(coding)


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity", b"chunked, chunked", b"", b"xchunked"])
def test_other_codings_are_refused(coding: bytes) -> None:
    """Rather than read in a way that another server would not."""
    with pytest.raises(Refusal):
        check_coding(coding)


@pytest.mark.parametrize(
    ("version", "hosts", "fields", "refused"),
    [
        ("1.1", 1, 1, False),
        ("1.1", 0, 1, True),
        ("1.1", 2, 1, True),
        ("1.0", 0, 1, False),
        ("1.0", 2, 1, True),
        ("2.0", 1, 1, True),
        ("1.1", 1, 4, False),
        ("1.1", 1, 5, True),
    ],
)
def test_heads(version: str, hosts: int, fields: int, refused: bool) -> None:
    """Version, host and count."""
    lines = [(b"x", b"y")] * fields
    if refused:
        with pytest.raises(Refusal):
            check_head(version, hosts, b"/", lines, LIMITS)
    else:
        check_head(version, hosts, b"/", lines, LIMITS)


def test_the_size_of_a_head_counts_target_names_and_values() -> None:
    """At the bound it passes, above it does not."""
    check_head("1.1", 1, b"/" * 500, [(b"n" * 20, b"v" * 500)], LIMITS)
    with pytest.raises(Refusal) as refusal:
        check_head("1.1", 1, b"/" * 500, [(b"n" * 20, b"v" * 501)], LIMITS)
    assert refusal.value.error.status == 431


def test_a_head_without_its_upgrade_keeps_everything_else() -> None:
    """Also the client's wish to close."""
    fields = [(b"host", b"a"), (b"connection", b"Upgrade, close, HTTP2-Settings"), (b"upgrade", b"h2c"), (b"x", b"y")]
    again = without_upgrade(b"POST", b"/p", "1.1", [*fields, (b"http2-settings", b"AAMA")])
    assert again == b"POST /p HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: y\r\n\r\n"


def test_connect_has_nothing_but_its_upgrade() -> None:
    """It is refused."""
    with pytest.raises(Refusal) as refusal:
        without_upgrade(b"CONNECT", b"a:1", "1.1", [])
    assert refusal.value.error.status == 405


def test_a_refusal_is_a_whole_response() -> None:
    """Status line, date, length, retry-after and our envelope."""
    head, body = error_response(Overloaded("Full.", retry_after_s=0.2), b"date: now\r\n").split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\ndate: now\r\n")
    assert b"\r\nretry-after: 1\r\n" in head
    assert b"\r\nconnection: close" in head
    assert b"content-length: %d\r\n" % len(body) in head
    assert body == b'{"error":{"message":"Full.","type":"overloaded_error","param":null,"code":"overloaded"}}'
