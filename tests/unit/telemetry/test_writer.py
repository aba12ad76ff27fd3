"""Lines that go out by themselves, whoever reads."""

from __future__ import annotations

import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from gateway.telemetry import SHARED_BLOCK_BYTES, LineWriter
from gateway.telemetry.writer import timestamp
from tests.support.waiting import eventually


class Pipe:
    """A real pipe whose reader reads only when told."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read_all(self) -> bytes:
        """Until the writing end is closed."""
        blocks = []
        while block := os.read(self.reader, 65536):
            blocks.append(block)
        return b"".join(blocks)

    def read_lines(self, count: int) -> list[bytes]:
        """At least so many lines."""
        data = b""
        while data.count(b"\n") < count or not data.endswith(b"\n"):
            data += os.read(self.reader, 65536)
        return data.splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Closed with the test."""
    made = Pipe()
    yield made
    for fd in (made.reader, made.writer):
        try:
            os.close(fd)
        except OSError:
            continue  # a test closed it


def test_lines_go_out_in_order_without_being_asked(pipe: Pipe) -> None:
    """Within a moment, and from then on again."""
    writer = LineWriter(pipe.writer)
    writer.put(b"one\n")
    writer.put(b"two\n")
    assert pipe.read_lines(2) == [b"one", b"two"]
    writer.put(b"three\n")
    assert pipe.read_lines(1) == [b"three"]
    assert writer.close()


def test_flush_waits_for_all_that_was_put(pipe: Pipe) -> None:
    """After it nothing is missing; a writer with nothing to write has nothing to wait for."""
    writer = LineWriter(pipe.writer)
    assert writer.flush(0)
    for number in range(1000):
        writer.put(b"%d\n" % number)
    assert writer.flush(10)
    os.close(pipe.writer)
    assert pipe.read_all().split() == [b"%d" % number for number in range(1000)]


def test_a_reader_that_never_reads_costs_neither_time_nor_memory(pipe: Pipe) -> None:
    """With a full pipe putting stays instant, the queue stays bounded, and every lost line is counted."""
    lost: list[int] = []
    writer = LineWriter(pipe.writer, max_lines=100, on_dropped=lost.append)
    line = b"x" * 1000 + b"\n"
    total = 5000
    slowest = 0.0
    for _ in range(total):
        before = time.monotonic()
        writer.put(line)
        slowest = max(slowest, time.monotonic() - before)
    assert slowest < 1.0
    before = time.monotonic()
    assert not writer.flush(0.2)
    assert time.monotonic() - before < 5.0
    kept = total - sum(lost)
    assert 100 <= kept <= 100 + 3 * 66  # the queue, the pipe, and a block in hand
    os.close(pipe.reader)
    assert writer.close(20)  # before the descriptor becomes another test's


def test_loss_is_told_in_a_line_once_there_is_room(pipe: Pipe) -> None:
    """Lines kept are whole and in order; how many are missing is said after them."""
    lost: list[int] = []
    writer = LineWriter(pipe.writer, max_lines=50, on_dropped=lost.append)
    for number in range(2000):
        writer.put(b"%04d" % number + b"x" * 500 + b"\n")
    assert lost
    read: list[bytes] = []
    reading = Thread(target=lambda: read.append(pipe.read_all()))
    reading.start()
    assert writer.close(20)
    os.close(pipe.writer)
    reading.join()
    lines = read[0].splitlines()
    notices = [json.loads(line) for line in lines if line.startswith(b"{")]
    kept = [line for line in lines if not line.startswith(b"{")]
    assert {len(line) for line in kept} == {504}
    assert [int(line[:4]) for line in kept] == sorted(int(line[:4]) for line in kept)
    assert {(notice["event"], notice["level"]) for notice in notices} == {("log_lines_dropped", "warning")}
    assert sum(notice["dropped"] for notice in notices) == sum(lost) == 2000 - len(kept)


def test_a_closed_pipe_loses_lines_and_nothing_else(pipe: Pipe) -> None:
    """Nobody will read them: they are counted, and the process goes on."""
    lost: list[int] = []
    writer = LineWriter(pipe.writer, on_dropped=lost.append)
    os.close(pipe.reader)
    writer.put(b"one\n")
    writer.put(b"two\n")
    assert writer.flush(10)
    assert sum(lost) >= 2
    writer.close()


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    """Another program on the same terminal or pipe may do that."""
    fcntl.fcntl(pipe.writer, fcntl.F_SETFL, os.O_NONBLOCK)
    writer = LineWriter(pipe.writer)
    for number in range(300):
        writer.put(b"%03d" % number + b"x" * 1000 + b"\n")
    lines = pipe.read_lines(300)
    assert [int(line[:3]) for line in lines] == list(range(300))
    writer.close()


def test_a_writer_that_was_closed_starts_anew(pipe: Pipe) -> None:
    """A log line after the end of everything still goes out."""
    writer = LineWriter(pipe.writer)
    writer.put(b"one\n")
    assert writer.close(10)
    writer.put(b"two\n")
    assert writer.close(10)
    assert pipe.read_lines(2) == [b"one", b"two"]


def test_processes_that_share_a_pipe_never_tear_lines(pipe: Pipe) -> None:
    """With blocks of at most PIPE_BUF each line arrives whole, also through a full pipe."""
    children = []
    for name in (b"a", b"b", b"c"):
        child = _fork()
        if child == 0:
            _write_and_leave(pipe.writer, name)
        children.append(child)
    os.close(pipe.writer)
    data = pipe.read_all()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    lines = data.splitlines()
    assert {(line[:1], len(line), len(set(line))) for line in lines} == {(n, 700, 1) for n in (b"a", b"b", b"c")}
    assert len(lines) == 3 * 500


def _fork() -> int:
    """As a server does that starts workers, threads or not; later versions of Python warn of the threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _write_and_leave(fd: int, name: bytes) -> None:
    writer = LineWriter(fd, block_bytes=SHARED_BLOCK_BYTES)
    for _ in range(500):
        writer.put(name * 700 + b"\n")
    os._exit(0 if writer.flush(30) else 1)


def test_a_forked_child_writes_its_own_lines_only(pipe: Pipe) -> None:
    """The parent's queue is the parent's to write; the child has a thread of its own."""
    writer = LineWriter(pipe.writer)
    writer.put(b"parent\n")
    child = _fork()
    if child == 0:
        writer.put(b"child\n")
        os._exit(0 if writer.flush(20) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert writer.close(20)
    os.close(pipe.writer)
    assert sorted(pipe.read_all().split()) == [b"child", b"parent"]


def test_a_file_takes_lines_as_well(tmp_path: Path) -> None:
    """Standard output may be a file."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(file.fileno())
        writer.put(b"one\n")
        eventually(lambda: path.read_bytes() == b"one\n", what="the line is in the file")
        writer.close()


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_790_000_000.0019, "2026-09-21T14:13:20.001Z"),
        (1_790_000_000.9999, "2026-09-21T14:13:20.999Z"),
    ],
)
def test_a_timestamp_is_rfc_3339_with_milliseconds(at: float, text: str) -> None:
    """In UTC, cut and not rounded."""
    assert timestamp(at) == text
