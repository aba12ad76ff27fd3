"""Durations, sizes and addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.units import (
    format_duration,
    format_size,
    parse_address,
    parse_duration,
    parse_networks,
    parse_size,
    split_list,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("10m", 600),
        ("1h", 3600),
        ("1.5h", 5400),
        ("45", 45),
        (" 2 s ", 2),
        (7, 7),
        (0.1, 0.1),
    ],
)
def test_duration_is_read(text: object, seconds: float) -> None:
    """A duration is a number with ms, s, m or h, or plain seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1h30m", "nan", "inf", "1e3", "٣s", None, True, float("nan")])
def test_anything_else_is_no_duration(text: object) -> None:
    """No sign, no other unit, no compound, no digit of another script."""
    with pytest.raises(ValueError, match="not a"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("20MiB", 20 * 2**20), ("64KiB", 65536), ("1GB", 10**9), ("1.5KiB", 1536), ("12", 12), (9, 9)]
)
def test_size_is_read(text: object, size: int) -> None:
    """A size is a number with a decimal or binary unit, or plain bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1.5", "20Mi", "20mib", "-1", "0.0001KiB", None, False, 1.5])
def test_anything_else_is_no_size(text: object) -> None:
    """A part of a byte and units in other spellings are refused."""
    with pytest.raises(ValueError, match="not a"):
        parse_size(text)


@given(st.integers(0, 10**9))
def test_what_is_written_is_read_again(number: int) -> None:
    """The formatted form of a number is read as the same number."""
    assert parse_size(format_size(number)) == number
    assert parse_duration(format_duration(number % 86401)) == number % 86401


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", 8080),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_address_is_read(text: str, host: str, port: int) -> None:
    """An address is a host, a colon and a port; IPv6 stands in brackets."""
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "localhost", "localhost:", "localhost:65536", "::1:8080", "[x]:1", "a b:1", "h:-1", "h:²"],
)
def test_anything_else_is_no_address(text: str) -> None:
    """A missing host or port, and IPv6 without brackets, are refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


def test_list_is_split_at_commas() -> None:
    """Blanks and empty items are dropped; a list is taken as it is."""
    assert split_list(" a, b ,,c,") == ("a", "b", "c")
    assert split_list(["a", "b"]) == ("a", "b")
    with pytest.raises(ValueError, match="not a list"):
        split_list(3)


def test_networks_are_strict() -> None:
    """A network with bits beyond its prefix is a mistake; a bare address is a network of one."""
    assert [str(network) for network in parse_networks(["10.0.0.0/8", "::1"])] == ["10.0.0.0/8", "::1/128"]
    with pytest.raises(ValueError, match="host bits"):
        parse_networks(["10.0.0.1/8"])
