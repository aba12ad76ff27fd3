"""Making a connection that is ready for commands: TCP, TLS, authentication, database, and a first look at the server.

Invariant: a connection handed out was answered by a server that took our credentials and, where writes are to go to
it, is no replica. Credentials are read from their file at every connection, so that a rotated password needs no
restart. Files of gateways and the server's own password change at different moments: where the server does not take
what the file has, it is offered once more what it took last. Certificate authorities of a file are those of now, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Final

from gateway.errors import RedisFailure, RedisRefused, RedisUnavailable
from gateway.redis.config import Credentials, Server, parse_url
from gateway.redis.connection import Connection, Owner
from gateway.redis.facts import SECTIONS, Facts, read_facts
from gateway.settings.rotated import RotatedSecret, marks_of

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.redis.config import Address, RedisConfig

CLIENT_NAME: Final = "llm-gateway"
CREDENTIALS_BYTES_MAX: Final = 65536


class Rejected(RedisUnavailable):
    """The server did not take our credentials."""


class OnlyReplica(RedisUnavailable):
    """The server is a replica and takes no writes."""


class Dialer:
    """Makes connections to the servers of one configuration. Raises OSError where the CA file cannot be used."""

    def __init__(self, config: RedisConfig) -> None:
        self._config = config
        self._url = RotatedSecret(None, config.url_file, _is_url)
        self._tls = _Tls(config.ca_file) if config.server.tls else None

    async def open(
        self, address: Address, owner: Owner, *, needs_primary: bool = True, former: Credentials | None = None
    ) -> tuple[Connection, Facts]:
        """A connection that is ready, and what its server says of itself. ``former`` is what that server took last.

        Raises OSError (TimeoutError and TLS failures are such) or RedisFailure; then nothing stays open.
        """
        async with asyncio.timeout(self._config.connect_timeout_s):
            connection = await self._connect(address, owner)
            try:
                await self._introduce(connection, former)
                facts = await self.look(connection)
                if needs_primary and facts.role not in {"", "master"}:
                    raise OnlyReplica(f"{address} is a {facts.role} and takes no writes")
            except BaseException:  # also when cancelled or out of time: nothing stays open
                connection.abort("it was not ready in time")
                raise
        return connection, facts

    async def open_sentinel(self, address: Address, owner: Owner) -> Connection:
        """A connection to a Sentinel. Raises like ``open``."""
        async with asyncio.timeout(self._config.connect_timeout_s):
            connection = await self._connect(address, owner)
            credentials = self._server().sentinel_credentials
            if credentials is not None:
                try:
                    await connection.ask(*_auth(credentials), within_s=self._config.connect_timeout_s)
                except BaseException:  # as above
                    connection.abort("it did not take the credentials")
                    raise
        return connection

    async def look(self, connection: Connection) -> Facts:
        """What the server says of itself now. Raises RedisUnanswered."""
        within_s = self._config.connect_timeout_s
        asked = [connection.ask("INFO", section, within_s=within_s) for section in SECTIONS]
        answers: list[object] = []
        for each in asked:
            with contextlib.suppress(RedisRefused):  # NOPERM: a user that may not ask
                answers.append(await each)
        return read_facts(answers)

    async def authenticate_anew(self, connection: Connection, credentials: Credentials) -> None:
        """Present other credentials on a connection that works. Raises RedisFailure; the connection works on."""
        await connection.ask(*_auth(credentials), within_s=self._config.connect_timeout_s)
        connection.credentials = credentials

    def credentials(self) -> Credentials | None:
        """Those of the file if there is one, else of the URL as it is now. Raises OSError."""
        path = self._config.credentials_file
        return self._server().credentials if path is None else read_credentials(path)

    def _server(self) -> Server:
        """What the URL says, which may be in a file that changes; only credentials are taken from a changed one."""
        url = self._url()
        return self._config.server if url is None else parse_url(url)

    async def _connect(self, address: Address, owner: Owner) -> Connection:
        loop = asyncio.get_running_loop()

        def make() -> Connection:
            return Connection(owner, address, self._config.deadline_s)

        if address.port:
            tls = None if self._tls is None else self._tls.context()
            _, connection = await loop.create_connection(make, address.host, address.port, ssl=tls)
        else:
            _, connection = await loop.create_unix_connection(make, address.host)
        return connection

    async def _introduce(self, connection: Connection, former: Credentials | None) -> None:
        """Come in with the credentials of now, else with those that the server took last."""
        credentials = self.credentials()
        try:
            await self._present(connection, credentials)
        except Rejected:
            if former is None or former == credentials:
                raise
            await self._present(connection, former)

    async def _present(self, connection: Connection, credentials: Credentials | None) -> None:
        """Authenticate, choose the database and give a name, in one write. Raises RedisFailure."""
        within_s = self._config.connect_timeout_s
        asked = [] if credentials is None else [connection.ask(*_auth(credentials), within_s=within_s)]
        if self._config.server.db:
            asked.append(connection.ask("SELECT", self._config.server.db, within_s=within_s))
        named = connection.ask("CLIENT", "SETNAME", CLIENT_NAME, within_s=within_s)
        try:
            for each in asked:
                await each
            with contextlib.suppress(RedisRefused):  # a user that may not; the name only helps who reads CLIENT LIST
                await named
        except RedisFailure as failure:
            code = failure.text.partition(" ")[0]
            if code in {"WRONGPASS", "NOAUTH", "NOPERM"} or "AUTH" in failure.text:
                raise Rejected(failure.text) from None
            raise
        connection.credentials = credentials


def read_credentials(path: Path) -> Credentials:
    """A password, or a user and a password on two lines. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(CREDENTIALS_BYTES_MAX + 1)
    lines = [line.removesuffix("\r") for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n")]
    if len(data) > CREDENTIALS_BYTES_MAX or len(lines) > 2 or not lines[-1]:
        raise OSError(f"{path} holds neither a password nor a user and a password on two lines")
    return Credentials(lines[0] if len(lines) == 2 else "", lines[-1])


def _is_url(text: str) -> bool:
    try:
        parse_url(text)
    except ValueError:
        return False
    return True


def _auth(credentials: Credentials) -> tuple[str, ...]:
    if credentials.user:
        return "AUTH", credentials.user, credentials.password
    return "AUTH", credentials.password


class _Tls:
    """Whom connections trust: the authorities of a file, as it was when it last could be used, else the system's."""

    def __init__(self, ca_file: Path | None) -> None:
        self._file = ca_file
        self._marks = marks_of(ca_file)
        self._context = _tls_context(ca_file)

    def context(self) -> ssl.SSLContext:
        """For the next connection; looks at the file."""
        marks = marks_of(self._file)
        if marks is not None and marks != self._marks:
            self._marks = marks
            with contextlib.suppress(OSError):  # ssl.SSLError is one
                self._context = _tls_context(self._file)
        return self._context


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
