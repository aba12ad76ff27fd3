"""The scalar notations of the registry: durations, money, names, URLs, headers, times. Pure.

Each function takes what the document holds and returns the value inside the gateway, or raises ValueError with a
reason that names what was expected. No reason repeats a header's value: it might be a credential.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.model import IPNetwork, Origin

DURATION_PATTERN = r"^[0-9]{1,9}(ms|s|m|h)$"
MONEY_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"
SECRET_ENV_PATTERN = r"^LLM_GATEWAY_SECRET_[A-Z0-9_]{1,128}$"  # noqa: S105  # a name, no secret
SHA256_PATTERN = r"^[0-9a-fA-F]{64}$"
HEADER_NAME_PATTERN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"
HEADER_VALUE_PATTERN = r"^[\x21-\x7e]([\x20-\x7e\t]{0,4094}[\x21-\x7e])?$"
ISSUER_PATTERN = r"^https://[^\s?#@]+$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"

NAME_CHARS_MAX = 253
DURATION_S_MAX = 366 * 86400

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_NANO = 10**9

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection "
    "te trailer transfer-encoding upgrade".split()
)
"""Headers of one connection only (RFC 9110, section 7.6.1)."""

SET_BY_GATEWAY = frozenset(
    "host content-length content-type content-encoding accept accept-encoding expect traceparent tracestate".split()
)
CREDENTIALS = frozenset("authorization cookie x-api-key api-key x-goog-api-key".split())


def duration_s(value: object) -> float:
    """Read ``500ms``, ``30s``, ``10m`` or ``1h`` as seconds; one whole number, one unit, at most 366 days."""
    text = _string(value, "a duration such as 500ms, 30s, 10m or 1h")
    if not re.fullmatch(DURATION_PATTERN[1:-1], text):
        raise ValueError("must be a duration such as 500ms, 30s, 10m or 1h")
    unit = text.lstrip("0123456789")
    seconds = int(text.removesuffix(unit)) * _UNIT_MS[unit] / 1000
    if seconds > DURATION_S_MAX:
        raise ValueError("must be at most 366 days")
    return seconds


def nano_usd(value: object) -> int:
    """Read a decimal string of USD as nano-USD, exactly; below 10**9 USD, at most nine decimal places."""
    text = _string(value, 'an amount of USD as a string in quotes, such as "0.50"')
    if not re.fullmatch(MONEY_PATTERN[1:-1], text):
        raise ValueError('must be an amount of USD such as "0.50", with at most nine decimal places')
    whole, _, fraction = text.partition(".")
    return int(whole) * _NANO + int(fraction.ljust(9, "0"))


def label(value: str) -> str:
    """Check a DNS-1123 label (at most 63 characters)."""
    if not re.fullmatch(LABEL_PATTERN[1:-1], value):
        raise ValueError("must be a DNS label: at most 63 of a-z, 0-9 and -, with a letter or digit at both ends")
    return value


def subdomain(value: str) -> str:
    """Check a DNS-1123 subdomain (labels with dots between, at most 253 characters), as Kubernetes names are."""
    if len(value) > NAME_CHARS_MAX or not re.fullmatch(SUBDOMAIN_PATTERN[1:-1], value):
        raise ValueError("must be a DNS subdomain: labels of a-z, 0-9 and - with dots between, at most 253 characters")
    return value


def header_name(value: str) -> str:
    """Check a field name (RFC 9110, section 5.1) that may be added upstream, and return it in lower case."""
    if not re.fullmatch(HEADER_NAME_PATTERN[1:-1], value):
        raise ValueError("is not a header name")
    name = value.lower()
    if name in HOP_BY_HOP:
        raise ValueError(f"{name} belongs to one connection and cannot be set")
    if name in SET_BY_GATEWAY:
        raise ValueError(f"{name} is set by the gateway")
    return name


def header_value(value: str) -> str:
    """Check a field value: visible ASCII, spaces inside, no CR, LF or other control character."""
    if not re.fullmatch(HEADER_VALUE_PATTERN[1:-1], value):
        raise ValueError("must be 1 to 4096 visible ASCII characters, with spaces only inside")
    return value


class Url(NamedTuple):
    """Where a backend is; ``path`` has no trailing slash."""

    origin: Origin
    path: str


def url(value: str) -> Url:
    """Split an http or https base URL; an IPv6 host comes back without its brackets."""
    if len(value) > 2048 or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("must be at most 2048 ASCII characters without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; credentials go to spec.auth")
    if "?" in value or "#" in value:
        raise ValueError("must have no query and no fragment")
    if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", parts.path):
        raise ValueError("has a character in its path that must be percent-encoded")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("has no valid port")
    scheme: str = parts.scheme
    host = _host(parts.hostname or "")
    origin = Origin(
        scheme="https" if scheme == "https" else "http", host=host, port=port or (443 if scheme == "https" else 80)
    )
    return Url(origin, parts.path.rstrip("/"))


def issuer(value: str) -> str:
    """Check the identifier of a token issuer: an https URL without query and fragment (OpenID Connect Discovery, 3)."""
    url(value)
    return value


def _host(host: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host)) if "%" not in host else _no_host()
        except ValueError:
            return _no_host()
    if len(host) > NAME_CHARS_MAX or not re.fullmatch(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_-]+)*\.?", host):
        return _no_host()
    return host


def _no_host() -> str:
    raise ValueError("has no valid host")


def unix_s(value: object) -> float:
    """Read an RFC 3339 time with its zone as Unix seconds."""
    text = _string(value, "a time such as 2027-01-01T00:00:00Z")
    if not re.fullmatch(TIME_PATTERN[1:-1], text):
        raise ValueError("must be an RFC 3339 time with a zone, such as 2027-01-01T00:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("is not a time that exists") from None


def network(value: object) -> IPNetwork:
    """Read a CIDR block or a single address."""
    text = _string(value, "a CIDR block such as 10.0.0.0/8")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be a CIDR block such as 10.0.0.0/8") from None
    raise ValueError(f"has bits set beyond its prefix; {meant} is the block")


def free_text(value: str) -> str:
    """Check a name that people choose freely: no control characters, no space at either end."""
    if value != value.strip() or not value or not value.isprintable():
        raise ValueError("must be printable text without a space at either end")
    return value


def _string(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {expected}")
    return value
