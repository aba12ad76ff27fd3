"""Durations, sizes and lists as people write them, turned into numbers and tuples.

A plain number keeps the meaning of the setting's unit: seconds for a duration, bytes for a size. Nothing here knows
which setting is being read; every function raises ``ValueError`` with a text that can be shown to an operator.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model import IPNetwork

_SECONDS_BY_UNIT = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES_BY_UNIT = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s?([A-Za-z]*)")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class Address(NamedTuple):
    """Where a listener binds. ``host`` has no brackets; ``port`` is 0 (any free one) to 65535."""

    host: str
    port: int


def parse_duration(value: object) -> float:
    """Seconds of ``500ms``, ``30s``, ``10m``, ``1h`` or a plain number of seconds.

    Raises ``ValueError`` for anything else, including negative and not finite numbers.
    """
    if isinstance(value, str):
        number, unit = _split_quantity(value)
        if unit in _SECONDS_BY_UNIT:
            return number * _SECONDS_BY_UNIT[unit]
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError("not a duration")


def parse_size(value: object) -> int:
    """Bytes of ``20MiB``, ``64KiB``, ``1GB`` or a plain number of bytes.

    ``KB``, ``MB`` and ``GB`` are powers of 1000, ``KiB``, ``MiB`` and ``GiB`` powers of 1024 (IEC 80000-13). Raises
    ``ValueError`` for anything else and for a part of a byte.
    """
    if isinstance(value, str):
        number, unit = _split_quantity(value)
        if unit in _BYTES_BY_UNIT and (number * _BYTES_BY_UNIT[unit]).is_integer():
            return int(number * _BYTES_BY_UNIT[unit])
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("not a size")


def _split_quantity(text: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a number with a unit")
    return float(match[1]), match[2]


def format_duration(seconds: float) -> str:
    """The shortest spelling that ``parse_duration`` reads back as the same number of seconds."""
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit in ("h", "m"):
        if seconds and seconds % _SECONDS_BY_UNIT[unit] == 0:
            return f"{seconds / _SECONDS_BY_UNIT[unit]:g}{unit}"
    return f"{seconds:g}s"


def format_size(size_bytes: int) -> str:
    """The shortest spelling that ``parse_size`` reads back as the same number of bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES_BY_UNIT[unit] == 0:
            return f"{size_bytes // _BYTES_BY_UNIT[unit]}{unit}"
    return str(size_bytes)


def parse_address(text: str) -> Address:
    """``HOST:PORT`` with an IPv4 address, a bracketed IPv6 address (RFC 3986, section 3.2.2) or a host name.

    Raises ``ValueError`` for anything else; a missing host is refused, since listening everywhere should be said.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("no port from 0 to 65535 after the last colon")
    if host.startswith("[") and host.endswith("]"):
        return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if _HOST_NAME.fullmatch(host) is None:
        raise ValueError("no host before the port")
    return Address(host, int(port))


def split_list(value: object) -> tuple[str, ...]:
    """The items of a comma-separated string, or of a list or tuple; blanks around an item are dropped."""
    if isinstance(value, str):
        return tuple(item for item in (part.strip() for part in value.split(",")) if item)
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    raise ValueError("not a list")


def parse_networks(items: Iterable[str]) -> tuple[IPNetwork, ...]:
    """IP networks in CIDR form; a bare address is the network of that address alone. Raises ``ValueError``."""
    return tuple(ipaddress.ip_network(item) for item in items)
