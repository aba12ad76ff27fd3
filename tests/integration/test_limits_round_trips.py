"""How often a call asks Redis, in the server's own order: before its backend is called, and afterwards.

MONITOR shows every command in the order in which the server ran them. The test marks in the same order when it sends a
call and, from within the backend, when that is called; both marks are commands of their own.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.limits.scripts import load_scripts
from tests.support.limited import Fleet, body, fleet, limit
from tests.support.scripts import Chat, Received, Script
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

ALL_KINDS = [
    limit("requests", 1000, "minute"),
    limit("tokens", 1_000_000, "minute", burst=2_000_000),
    limit("concurrency", 100),
    limit("tokens", 1_000_000, "day"),
    limit("cost", "4000", "month"),
]
SENT, ASKED_BACKEND, DONE = "mark-sent", "mark-backend", "mark-done"

# 1760000000.123456 [0 127.0.0.1:50000] "EVALSHA" "..."; what a script runs has "lua" in place of the address.
_LINE = re.compile(r"^\+?[\d.]+ \[\d+ (?P<client>\S+)\] (?P<command>.*)$")


class Monitor:
    """What a server runs, by the second connection that watches it."""

    def __init__(self, valkey: Valkey) -> None:
        self._socket = socket.create_connection(("127.0.0.1", valkey.port), timeout=10.0)
        self._socket.sendall(b"MONITOR\r\n")
        self._lines: list[str] = []
        self._file = self._socket.makefile("r", encoding="utf-8", errors="replace")
        assert self._file.readline().startswith("+OK")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Stop watching."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(5.0)
        self._file.close()
        self._socket.close()

    def between(self, first: str, last: str) -> list[str]:
        """The names of the gateway's commands about calls of the tenant between two marks, the latest of each."""
        eventually(lambda: self._span(first, last) is not None, what=f"{first} and {last}")
        lines = self._span(first, last) or []
        return [line.split('"')[1].upper() for line in lines if _is_about_a_call(line)]

    def _span(self, first: str, last: str) -> list[str] | None:
        lines = list(self._lines)
        ends = [at for at, line in enumerate(lines) if last in line]
        starts = [at for at, line in enumerate(lines) if first in line]
        return lines[starts[-1] + 1 : ends[-1]] if ends and starts and starts[-1] < ends[-1] else None

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._file:
                if (seen := _LINE.match(line)) and seen["client"] != "lua":
                    self._lines.append(seen["command"])


def _is_about_a_call(line: str) -> bool:
    """Whether it names the tenant and is neither the test's own nor one of those that are sent from time to time."""
    from_time_to_time = ":export" in line or load_scripts().renew.sha in line
    return "{acme}" in line and not from_time_to_time and not line.startswith(('"KEYS"', '"HGETALL"'))


@contextlib.contextmanager
def watched(limits: list[dict[str, Any]]) -> Iterator[tuple[Fleet, Monitor]]:
    """One gateway that has its scripts in the server, and the monitor of that server."""
    with fleet(limits, maxOutputTokens=100) as one:

        def answer(request: Received) -> Script:
            one.command("ECHO", ASKED_BACKEND)
            return Chat()(request)

        one.upstream.behaviour = answer
        one.ask()
        eventually(lambda: one.usage()["requests"] == 1)
        with contextlib.closing(Monitor(one.valkey)) as monitor:
            yield one, monitor


def call(one: Fleet, settled: int, fields: dict[str, Any] | None = None) -> int:
    """One call between its marks; DONE comes once the ledger has ``settled`` calls. The status."""
    one.command("ECHO", SENT)
    status = one.ask(fields).status
    eventually(lambda: one.usage()["requests"] == settled)
    one.command("ECHO", DONE)
    return status


@pytest.mark.parametrize("stream", [False, True])
def test_an_admitted_call_asks_redis_once_before_its_backend_is_called(stream: bool) -> None:
    """However many limits it has; and once more afterwards, when nobody waits for it."""
    with watched(ALL_KINDS) as (one, monitor):
        for settled in (2, 3, 4):
            assert call(one, settled, body(stream=stream)) == 200
            assert monitor.between(SENT, ASKED_BACKEND) == ["EVALSHA"]
            assert monitor.between(ASKED_BACKEND, DONE) == ["EVALSHA"]


def test_a_call_without_limits_waits_for_no_redis() -> None:
    """Only the ledger hears of it, once it has ended."""
    with watched([]) as (one, monitor):
        assert call(one, 2) == 200
        assert monitor.between(SENT, ASKED_BACKEND) == []
        assert monitor.between(ASKED_BACKEND, DONE) == ["EVALSHA"]


def test_a_refused_call_asks_redis_once_and_leaves_nothing() -> None:
    """No second command, neither of settling nor of voiding."""
    with watched([*ALL_KINDS, limit("requests", 1, "month")]) as (one, monitor):
        assert call(one, 1) == 429
        assert monitor.between(SENT, DONE) == ["EVALSHA"]
        assert len(one.upstream.requests) == 1
