"""Where Redis is and what may be asked of it: a URL in its parts, and every bound of the lane.

URL forms, each also with TLS (``rediss``)::

    redis://[user:password@]host[:6379][/db]
    unix:///path/to/socket[?db=0]
    redis+sentinel://[user:password@]host[:26379],host...[/service[/db]][?sentinel_user=..&sentinel_password=..]
    redis+cluster://[user:password@]host[:6379],host...

A value says nothing of its password in its representation. Nothing is read or connected to here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
DEFAULT_SERVICE: Final = "mymaster"

Kind = Literal["single", "sentinel", "cluster"]

_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_HOST: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_OPTIONS: Final = frozenset({"db", "sentinel_user", "sentinel_password"})


class Address(NamedTuple):
    """A TCP address, or with port 0 the path of a Unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class Credentials(NamedTuple):
    """A password, and the ACL user it belongs to; an empty ``user`` is the default one."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class Server(NamedTuple):
    """What a URL says."""

    kind: Kind
    addresses: tuple[Address, ...]
    tls: bool = False
    db: int = 0
    service: str = ""
    credentials: Credentials | None = None
    sentinel_credentials: Credentials | None = None


class RedisConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A server and the bounds of a lane to it; seconds end in ``_s``.

    ``deadline_s`` bounds a command from its write to its answer, ``connect_timeout_s`` a connection from its beginning
    until the server has said that it is ready. ``failures_max`` deadlines in a row without an answer open the breaker,
    which then asks at most every ``probe_s``. ``pending_max`` bounds commands that wait, per connection. Every
    ``check_s`` the server is looked at. ``credentials_file`` holds a password, or a user and a password on two lines,
    and wins over the URL's. ``url_file`` holds the URL that ``server`` was made of, whose credentials may change.
    ``ca_file`` replaces the system's certificate authorities. ``purpose`` is what the lane is for, in its log lines: a
    process has several to one server.
    """

    server: Server
    deadline_s: float = 0.05
    connect_timeout_s: float = 1.0
    probe_s: float = 1.0
    failures_max: int = 5
    pending_max: int = 10_000
    check_s: float = 2.0
    ca_file: Path | None = None
    credentials_file: Path | None = None
    url_file: Path | None = None
    purpose: str = ""


def parse_url(url: str) -> Server:
    """The server that ``url`` names. Raises ValueError, whose text never quotes the URL."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError("the address of Redis is no URL") from None  # their texts quote what may be a password
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"unknown option {min(unknown)!r} in the address of Redis")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    credentials = _credentials(*userinfo.partition(":")[::2])
    if parts.scheme == "unix":
        if hosts or len(parts.path) < 2:
            raise ValueError("expected unix:///path/to/socket")
        address = Address(unquote(parts.path), 0)
        return Server("single", (address,), db=_database(options.get("db", "")), credentials=credentials)
    if parts.scheme not in _SCHEMES:
        raise ValueError("unknown scheme in the address of Redis")
    kind, tls = _SCHEMES[parts.scheme]
    default_port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    addresses = tuple(_address(text, default_port) for text in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise ValueError("several addresses need redis+sentinel:// or redis+cluster://")
    service, database = _path(parts.path, kind)
    db = _database(database or options.get("db", ""))
    if kind == "cluster" and db:
        raise ValueError("a cluster has database 0 only")
    sentinel = _credentials(options.get("sentinel_user", ""), options.get("sentinel_password", ""))
    return Server(kind, addresses, tls, db, service, credentials, sentinel)


def _credentials(user: str, password: str) -> Credentials | None:
    return Credentials(unquote(user), unquote(password)) if password else None


def _address(text: str, default_port: int) -> Address:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("expected HOST or HOST:PORT in the address of Redis")
    port = int(found["port"] or default_port)
    if not 0 < port < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return Address(found["six"] or found["name"], port)


def _path(path: str, kind: Kind) -> tuple[str, str]:
    """The service of Sentinel and the database that a path names."""
    first, _, rest = path.strip("/").partition("/")
    if kind == "sentinel":
        return unquote(first) or DEFAULT_SERVICE, rest
    if rest:
        raise ValueError("expected nothing after the database in the address of Redis")
    return "", first


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and int(text) <= 9999):
        raise ValueError("a database is a number from 0 to 9999")
    return int(text or 0)
