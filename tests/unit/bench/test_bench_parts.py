"""The parts of the bench that decide what it reports: sizes on the wire, the chunked reader, ratios and verdicts."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import wire
from bench.chunked import Chunked
from bench.measure import ROWS, Results
from bench.report import ratio, table, verdict
from bench.upstream import soak_writes


def test_sizes_are_what_the_bench_says() -> None:
    """A request has 250 bytes, a prompt a megabyte, a reply 900 bytes."""
    assert len(wire.chat_body(wire.PLAIN)) == 250
    assert len(wire.chat_body(wire.PACED, stream=True)) == 250
    assert len(wire.chat_body(wire.PLAIN, size=1_000_000)) == 1_000_000
    assert json.loads(wire.chat_body(wire.PLAIN, size=1_000_000))["model"] == "plain"
    head, _, body = wire.plain_reply().partition(b"\r\n\r\n")
    assert len(body) == 900
    assert b"content-length: 900" in head
    assert json.loads(body)["usage"]["completion_tokens"] == 100


@given(parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_the_chunked_reader_does_not_care_for_packets(parts: list[bytes], cuts: list[int]) -> None:
    """However the bytes of a chunked body are cut, its content is the same and its end is seen."""
    body = b"".join(map(wire.as_chunk, parts)) + wire.LAST_CHUNK
    reader, content = Chunked(), b""
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in zip(edges, edges[1:], strict=False):  # noqa: RUF007 - no itertools for two ints
        assert not reader.complete or start == end
        content += reader.feed(body[start:end])
    assert content == b"".join(parts)
    assert reader.complete


@pytest.mark.parametrize(
    "body",
    [b"3\r\nabcd\r\n", b"zz\r\n", b"1\r\na\r\n0\r\n\r\nmore", b"1\r\na\r\n0\r\n\r\n0\r\n\r\n", b"0\r\nx: y\r\n\r\n"],
)
def test_the_chunked_reader_is_strict(body: bytes) -> None:
    """Anything but chunked coding is an error, bytes after its end too."""
    with pytest.raises(ValueError, match=r"chunk|literal"):
        Chunked().feed(body)


@pytest.mark.parametrize("with_usage", [True, False])
def test_a_soak_stream_is_written_as_the_client_expects_it(with_usage: bool) -> None:
    """The upstream's writes, taken out of their chunks, are the body that a soak client compares with."""
    head, *chunks = soak_writes("s42", with_usage=with_usage)
    assert head == wire.STREAM_HEAD
    reader = Chunked()
    assert b"".join(map(reader.feed, chunks)) == wire.soak_body("s42", with_usage=with_usage)
    assert reader.complete
    assert any(each.count(b"data: ") == 2 for each in chunks)
    assert any(b"data: " not in each for each in chunks)


def test_ratios_are_taken_within_each_round() -> None:
    """A slow round weighs on both sides of its ratio, not on one."""
    results = Results()
    for gateway, envoy in ((100.0, 100.0), (300.0, 250.0), (120.0, 100.0)):
        results.add("request", "gateway", gateway)
        results.add("request", "envoy", envoy)
    assert ratio(results, "request", "gateway", "envoy") == pytest.approx(1.2)
    assert verdict(results, "request") == "met"
    assert ratio(results, "request", "gateway", "nginx") is None


def test_budgets_are_marked_met_missed_or_not_judged() -> None:
    """Each budget has a verdict, and one that needs an absent Envoy says so."""
    results = Results()
    results.add("memory", "gateway", 81.0)
    results.add("start", "gateway", 1.2)
    results.add("request", "gateway", 100.0)
    assert [verdict(results, row) for row in ("memory", "start", "request", "stream")] == [
        "MISSED",
        "met",
        "not judged: no Envoy",
        "",
    ]
    lines = table(results, ["gateway", "nginx"]).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({len(line) for line in lines}) == 1
    assert re.search(r"start to ready, s +\| 1\.20 +\| - +\| - +\| 1\.5 +\| met", lines[8])
