"""Waiting for a behaviour with a deadline, and ports that nobody else has.

A test that sleeps hopes; these helpers poll a condition and fail by name when the time is over.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_PORTS_TESTED_MAX = 500
_RANDOM = random.SystemRandom()  # Hypothesis seeds the other one: tests that run side by side would take the same ports


def eventually(probe: Callable[[], T], timeout_s: float = 5.0, *, what: str = "", every_s: float = 0.01) -> T:
    """Call ``probe`` until it returns something true and return that.

    An ``AssertionError`` of the probe counts as "not yet". Raises AssertionError with the last failure or value after
    ``timeout_s`` seconds (> 0).
    """
    deadline = time.monotonic() + timeout_s
    while True:
        reason: object
        try:
            value = probe()
            if value:
                return value
            reason = value
        except AssertionError as error:
            reason = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or getattr(probe, '__name__', 'it')}: {reason!r}")
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, outside the range that outgoing connections take theirs from.

    Another process may still take it first, so whoever listens on it must be ready to try another.
    """
    for _ in range(_PORTS_TESTED_MAX):
        port = _RANDOM.randrange(12000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port after {_PORTS_TESTED_MAX} tries")


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections for as long as the block lasts: bound, so nobody takes it, never listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def black_hole_port() -> Iterator[int]:
    """A port where connecting neither succeeds nor fails: its accept queue is full and nobody accepts.

    Linux drops the SYN of a connection to a full queue, which is what a firewall does to an unreachable host.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting: list[socket.socket] = []
        try:
            while _completes(port, waiting):
                if len(waiting) > 16:
                    raise AssertionError("the accept queue never filled up")
            yield port
        finally:
            for each in waiting:
                each.close()


def _completes(port: int, opened: list[socket.socket]) -> bool:
    client = socket.socket()
    opened.append(client)
    client.settimeout(0.2)
    try:
        client.connect(("127.0.0.1", port))
    except TimeoutError:
        return False
    return True
