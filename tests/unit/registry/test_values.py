"""The scalar notations: durations, money, URLs, headers, times, networks."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Origin
from gateway.registry import values


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30.0), ("10m", 600.0), ("1h", 3600.0), ("0s", 0.0), ("001s", 1.0)]
)
def test_duration(text: str, seconds: float) -> None:
    """A duration is one whole number with one unit."""
    assert values.duration_s(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "30",
        "30 s",
        "1.5s",
        "-1s",
        "1d",
        "s",
        "1h30m",
        "30S",
        "٣s",
        "30s\n",
        30,
        None,
        True,
        "9999999h",
        "1" * 99 + "s",
    ],
)
def test_not_a_duration(value: object) -> None:
    """Everything else is refused."""
    with pytest.raises(ValueError, match="must be"):
        values.duration_s(value)


@given(st.integers(0, 8_000), st.sampled_from(["ms", "s", "m", "h"]))
def test_duration_is_exact(number: int, unit: str) -> None:
    """A duration is its number times its unit, to the millisecond."""
    unit_ms = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}[unit]
    assert round(values.duration_s(f"{number}{unit}") * 1000) == number * unit_ms


@given(st.integers(0, 10**18 - 1))
def test_money_is_exact(nano: int) -> None:
    """Every nano-USD has a notation that comes back as the same integer."""
    assert values.nano_usd(f"{nano // 10**9}.{nano % 10**9:09d}") == nano


@given(st.decimals(0, 999_999, places=4))
def test_money_never_passes_through_a_float(amount: Decimal) -> None:
    """The nano-USD are what exact decimal arithmetic says."""
    assert values.nano_usd(f"{amount:f}") == int(amount * 10**9)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".5",
        "5.",
        "-1",
        "+1",
        "1e3",
        "1,5",
        "$1",
        " 1",
        "1\n",
        "0.1234567891",
        "1000000000",
        "٣",
        1,
        0.5,
        None,
        True,
    ],
)
def test_not_money(value: object) -> None:
    """Signs, exponents, more than nine places, and anything but a string are refused."""
    with pytest.raises(ValueError, match="must be"):
        values.nano_usd(value)


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path"),
    [
        ("http://vllm.models.svc:8000/v1", "http", "vllm.models.svc", 8000, "/v1"),
        ("https://api.openai.com/v1/", "https", "api.openai.com", 443, "/v1"),
        ("http://localhost", "http", "localhost", 80, ""),
        ("http://127.0.0.1:1/", "http", "127.0.0.1", 1, ""),
        ("https://[2001:DB8::1]:8443/a/b", "https", "2001:db8::1", 8443, "/a/b"),
        ("HTTPS://API.Example.COM/V1", "https", "api.example.com", 443, "/V1"),
        ("http://my_service:80/a%20b", "http", "my_service", 80, "/a%20b"),
    ],
)
def test_url(text: str, scheme: str, host: str, port: int, path: str) -> None:
    """A base URL becomes an origin, with the port that its scheme implies, and a path without a trailing slash."""
    url = values.url(text)
    assert url.origin == Origin(scheme="https" if scheme == "https" else "http", host=host, port=port)
    assert url.path == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vllm:8000",
        "ftp://host/",
        "//host/v1",
        "http://",
        "http:///v1",
        "http://:80/",
        "http://user@host/",
        "http://user:secret@host/",
        "http://host/v1?key=1",
        "http://host/v1?",
        "http://host/v1#x",
        "http://host:0/",
        "http://host:/",
        "http://host:65536/",
        "http://host:x/",
        "http://ho st/",
        "http://host/a b",
        "http://host/\r\nx: y",
        "http://bücher.example/",
        "http://[::1/",
        "http://[::1%25eth0]/",
        "http://[gg::]/",
        "http://host\\@evil/",
        "http://host/<x>",
        "http://-host/",
        "http://" + "a" * 2048,
    ],
)
def test_not_a_url(text: str) -> None:
    """A URL that is not plainly one origin and one path is refused."""
    with pytest.raises(ValueError, match=r"must|has|is not"):
        values.url(text)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "TE",
        "content-type",
        "traceparent",
        "",
        "a b",
        "x:",
        "x\n",
        "é",
    ],
)
def test_header_names_that_cannot_be_set(name: str) -> None:
    """Headers of the connection, those that the gateway sets, and what is no name are refused."""
    with pytest.raises(ValueError, match=r"header name|belongs|set by"):
        values.header_name(name)


@pytest.mark.parametrize("value", ["", " x", "x ", "x\r\nevil: 1", "x\ny", "x\x00", "é", "x" * 4097])
def test_header_values_that_cannot_be_sent(value: str) -> None:
    """A value that could end its line or is not plain ASCII is refused, and not repeated in the reason."""
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        values.header_value(value)
    assert not value.strip() or value.strip() not in str(caught.value) or len(value.strip()) == 1


@given(st.integers(86_400, 7_258_118_400), st.integers(-14 * 60, 14 * 60))
def test_time_round_trip(unix_s: int, offset_minutes: int) -> None:
    """An RFC 3339 time with any offset is the moment that it names."""
    moment = datetime.fromtimestamp(unix_s, timezone(timedelta(minutes=offset_minutes)))
    assert values.unix_s(moment.isoformat()) == unix_s


def test_time_spellings() -> None:
    """Z and lower case are as good as an offset."""
    expected = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    for text in (
        "2027-01-01T00:00:00Z",
        "2027-01-01t00:00:00z",
        "2027-01-01T01:00:00+01:00",
        "2027-01-01T00:00:00.000Z",
    ):
        assert values.unix_s(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-13-01T00:00:00Z",
        "2027-02-30T00:00:00Z",
        "2027-01-01 00:00:00Z",
        1798761600,
        None,
    ],
)
def test_not_a_time(value: object) -> None:
    """A time without a zone, or that does not exist, is refused."""
    with pytest.raises(ValueError, match=r"must be|exists"):
        values.unix_s(value)


def test_networks() -> None:
    """Blocks and single addresses of both families are accepted."""
    assert values.network("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert values.network("10.1.2.3") == ipaddress.ip_network("10.1.2.3/32")
    assert values.network("2001:db8::/32") == ipaddress.ip_network("2001:db8::/32")


def test_a_network_with_host_bits_names_the_one_that_was_meant() -> None:
    """A block with bits beyond its prefix is refused: it is unclear what it should allow."""
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8 is the block"):
        values.network("10.0.0.1/8")
    for value in ("", "10.0.0.0/33", "example.com", 10, None):
        with pytest.raises(ValueError, match="CIDR"):
            values.network(value)


@pytest.mark.parametrize("name", ["a", "a-b", "a.b", "support.v2", "1", "a" * 63 + "." + "b" * 63])
def test_names(name: str) -> None:
    """Kubernetes object names are names."""
    assert values.subdomain(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a/b", "a" * 64, "a.b" * 100, "a\n", "é"]
)
def test_not_names(name: str) -> None:
    """Anything else is not."""
    with pytest.raises(ValueError, match="DNS subdomain"):
        values.subdomain(name)
