"""Lines to a file descriptor by a thread of its own, so that nobody who logs ever waits for whoever reads.

Lines wait in a bounded queue and go out in blocks, some ten times a second. Where the reader stops, the queue fills and
the newest lines are dropped; how many is counted at once and said in a line later.

Invariant: a line goes out whole, in order and once, or not at all. Where several busy processes share a pipe, blocks of
at most PIPE_BUF bytes keep their lines apart (POSIX ``write``); larger ones are cheaper.
"""

from __future__ import annotations

import os
import select
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event, RLock, Thread

import msgspec

from gateway.clock import wall

BLOCK_BYTES = 65536
"""What a Linux pipe holds."""

SHARED_BLOCK_BYTES = select.PIPE_BUF
"""What a pipe takes in one piece, whoever else writes to it."""

_BATCH_DELAY_S = 0.1


class _Dropped(msgspec.Struct):
    ts: str
    dropped: int
    level: str = "warning"
    event: str = "log_lines_dropped"


class _Mark:
    """A place in the queue that somebody waits for; the ``last`` one ends the thread."""

    __slots__ = ("last", "reached")

    def __init__(self, *, last: bool = False) -> None:
        self.reached = Event()
        self.last = last


class LineWriter:
    """Writes lines to ``fd`` (default: standard output), at most ``max_lines`` waiting.

    ``put`` may be called from any thread, before and after a fork: a child starts with an empty queue and a thread of
    its own. ``on_dropped`` is told how many lines were lost, on the thread that lost them; it must not log.
    ``block_bytes`` bounds one write, but for a longer line, which goes alone: SHARED_BLOCK_BYTES with several workers.
    """

    def __init__(
        self,
        fd: int = 1,
        *,
        max_lines: int = 10_000,
        on_dropped: Callable[[int], None] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._fd = fd
        self._max_lines = max_lines
        self._on_dropped = on_dropped
        self._block_bytes = block_bytes
        self._start_empty()
        # The lines of a parent are its parent's to write, and its thread is not there after a fork.
        start_empty = weakref.WeakMethod(self._start_empty)
        os.register_at_fork(after_in_child=lambda: (start := start_empty()) and start())

    def _start_empty(self) -> None:
        self._queue: SimpleQueue[bytes | _Mark] = SimpleQueue()
        self._lock = RLock()  # a signal handler may log while this thread holds it
        self._hurry = Event()  # somebody waits: gather no more
        self._thread: Thread | None = None
        self._dropped = 0  # not yet said in a line

    def put(self, line: bytes) -> None:
        """Queue one line, which ends in its newline. Never blocks, never raises."""
        if self._queue.qsize() >= self._max_lines:
            self._lose(1)
            return
        self._queue.put(line)
        if self._thread is None:
            self._start_thread()

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until all that was put is written, at most ``timeout_s``; whether it is. Blocks the caller."""
        return self._wait_for(_Mark(), timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Flush and end the thread; whether all was written. Lines put later start it anew."""
        return self._wait_for(_Mark(last=True), timeout_s)

    def _wait_for(self, mark: _Mark, timeout_s: float) -> bool:
        if self._thread is None and self._queue.empty():
            return True
        self._queue.put(mark)
        self._hurry.set()
        self._start_thread()
        return mark.reached.wait(timeout_s)

    def _start_thread(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            # A daemon: a reader that never reads must not keep the process from ending.
            self._thread = Thread(target=self._run, name="log-writer", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is ending and starts no more threads
                self._thread = None

    def _lose(self, count: int) -> None:
        with self._lock:
            self._dropped += count
        if self._on_dropped is not None:
            self._on_dropped(count)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            self._hurry.wait(_BATCH_DELAY_S)  # lines gather
            mark = self._write_until_mark(item)
            self._say_dropped()
            if mark is None:
                continue
            self._hurry.clear()
            if mark.last:
                self._thread = None
                if not self._queue.empty():  # put while this thread was still there
                    self._start_thread()
            mark.reached.set()
            if mark.last:
                return

    def _write_until_mark(self, item: bytes | _Mark) -> _Mark | None:
        """Write this item and all that is queued, in blocks; stops at a mark and returns it."""
        block: list[bytes] = []
        size = 0
        while isinstance(item, bytes):
            if block and size + len(item) > self._block_bytes:
                self._write(b"".join(block))
                block = []
                size = 0
            block.append(item)
            size += len(item)
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        if block:
            self._write(b"".join(block))
        return None if isinstance(item, bytes) else item

    def _say_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._write(msgspec.json.encode(_Dropped(timestamp(wall()), dropped)) + b"\n")

    def _write(self, block: bytes) -> None:
        rest = memoryview(block)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:  # nobody will ever read these: closed pipe, full disk
                self._lose(block.count(b"\n"))
                return


def timestamp(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC with milliseconds."""
    second, millisecond = divmod(int(at * 1000), 1000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"
