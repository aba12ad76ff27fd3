"""The head of a request to a backend that is named by an IPv6 address."""

from __future__ import annotations

import pytest

from gateway.dialects.openai.request import request_head
from gateway.model import Backend, Origin


@pytest.mark.parametrize(("port", "host"), [(80, b"host: [::1]"), (8000, b"host: [::1]:8000")])
def test_ipv6_addresses_are_in_brackets(port: int, host: bytes) -> None:
    """``Host`` has an IPv6 address in brackets (RFC 3986, section 3.2.2), with the port where it is not the default."""
    backend = Backend(name="b", provider="openai", origin=Origin(scheme="http", host="::1", port=port))
    assert request_head(backend, "/chat/completions").split(b"\r\n")[1] == host
