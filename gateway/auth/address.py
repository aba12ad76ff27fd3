"""The caller's address behind proxies.

``x-forwarded-for`` is believed only as far as the hops that wrote it are trusted: read from the right, the first
address that is not a trusted proxy is the caller's. Anybody may send the header; nobody else's entries count.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from gateway.model import IPNetwork

_MAX_HOPS = 32


class ClientAddress:
    """Finds the caller's address, given the networks of trusted proxies."""

    def __init__(self, trusted: Sequence[IPNetwork]) -> None:
        self._trusted = tuple(trusted)

    @property
    def needs_header(self) -> bool:
        """False if no proxy is trusted, so that the header need not be looked for."""
        return bool(self._trusted)

    def of(self, peer: str, forwarded_for: bytes) -> str:
        """The caller's address for a connection from ``peer``: ``peer`` itself unless it is a trusted proxy."""
        if not forwarded_for or not self._is_trusted(peer):
            return peer
        address = peer
        for hop in forwarded_for.decode("latin-1").split(",")[: -_MAX_HOPS - 1 : -1]:
            candidate = _parse(hop)
            if candidate is None:
                return address
            address = candidate
            if not self._is_trusted(address):
                return address
        return address

    def _is_trusted(self, address: str) -> bool:
        return is_within(address, self._trusted)


def is_within(address: str, networks: Iterable[IPNetwork]) -> bool:
    """Whether ``address`` lies in one of ``networks``; False where it is no address.

    An IPv4 address counts as such in its IPv6 form too (RFC 4291, section 2.5.5.2).
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


def _parse(hop: str) -> str | None:
    """An entry is an address, or (as some proxies write it) an address with a port."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
