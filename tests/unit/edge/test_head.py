"""The head of a request: credentials, ids and lengths, and nothing malformed believed."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.auth import ClientAddress
from gateway.edge.head import RequestHead, read_head, refuse_encoded_body
from gateway.errors import InvalidRequest

DIRECT = ClientAddress([])
PROXIED = ClientAddress([ipaddress.ip_network("10.0.0.0/8")])


def head(*headers: tuple[bytes, bytes], addresses: ClientAddress = DIRECT) -> RequestHead:
    """A head with these fields, from 10.0.0.1."""
    return read_head({"headers": list(headers), "client": ("10.0.0.1", 4711)}, addresses)


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        ((), ()),
        (((b"authorization", b"Bearer k1"),), (b"k1",)),
        (((b"authorization", b"bearer  k1 "),), (b"k1",)),
        (((b"authorization", b"Basic k1"),), (b"",)),
        (((b"authorization", b"k1"),), (b"",)),
        (((b"x-api-key", b"k1"), (b"api-key", b"k2")), (b"k1", b"k2")),
        (((b"authorization", b"Bearer k1"), (b"authorization", b"Bearer k2")), (b"k1", b"k2")),
        (((b"cookie", b"k1"), (b"x-other", b"k2")), ()),
    ],
)
def test_credentials_as_found(headers: tuple[tuple[bytes, bytes], ...], presented: tuple[bytes, ...]) -> None:
    """Each header that may carry a credential gives one value; another scheme gives one that opens nothing."""
    assert head(*headers).credentials.presented == presented


@pytest.mark.parametrize(("text", "length"), [(b"12", 12), (b"", None), (b"-1", None), (b"1x", None), (b"1,2", None)])
def test_the_announced_length(text: bytes, length: int | None) -> None:
    """A number or nothing."""
    assert head((b"content-length", text)).content_length == length


def test_a_repeated_length_is_none() -> None:
    """Of a single value, a repeated one is no value at all."""
    assert head((b"content-length", b"1"), (b"content-length", b"2")).content_length is None


def test_the_callers_address() -> None:
    """The peer's, or what trusted proxies say; several lines of the header are one list."""
    forwarded = ((b"x-forwarded-for", b"1.1.1.1, 203.0.113.7"), (b"x-forwarded-for", b"10.0.0.2"))
    assert head(*forwarded).credentials.client_ip == "10.0.0.1"
    assert head(*forwarded, addresses=PROXIED).credentials.client_ip == "203.0.113.7"
    assert read_head({"headers": [], "client": None}, PROXIED).credentials.client_ip == ""


def test_a_request_id_is_taken() -> None:
    """A well-formed one is the caller's; anything else counts as absent."""
    assert head((b"x-request-id", b"abc-123")).request_id == "abc-123"
    assert head((b"x-request-id", b"bad id\xff")).request_id == ""
    assert head().request_id == ""


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"gzip, identity"])
def test_compressed_bodies_are_refused(coding: bytes) -> None:
    """What is billed and bounded is what arrives."""
    with pytest.raises(InvalidRequest) as refusal:
        refuse_encoded_body(head((b"content-encoding", coding)))
    assert refusal.value.code == "unsupported_encoding"


@pytest.mark.parametrize("coding", [b"", b"identity", b"Identity"])
def test_plain_bodies_are_not(coding: bytes) -> None:
    """``identity`` is no coding."""
    refuse_encoded_body(head((b"content-encoding", coding)))
