"""The line of a request."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Usage
from gateway.telemetry import AccessLog, LineWriter, RequestRecord, trace_from
from tests.unit.telemetry.samples import record, stream_record

LogOf = Callable[[RequestRecord], dict[str, Any]]


@pytest.fixture
def log_of() -> Iterator[LogOf]:
    """Writes a record and reads its line back from a pipe."""
    reader, writer = os.pipe()
    log = AccessLog(LineWriter(writer), environment="staging")

    def write(made: RequestRecord) -> dict[str, Any]:
        log.write(made)
        assert log.flush(10)
        data = os.read(reader, 65536)
        assert data.endswith(b"\n")
        assert data.count(b"\n") == 1
        parsed: dict[str, Any] = json.loads(data)
        return parsed

    yield write
    log.close()
    os.close(reader)
    os.close(writer)


def test_a_line_says_everything_about_a_request(log_of: LogOf) -> None:
    """Every field, with its unit."""
    trace = trace_from(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    attempts = [("gpt", "rate_limited", 0.0012345, "asked for 3 s"), ("qwen", "ok", 0.4, "")]
    line = log_of(stream_record(trace=trace, attempts=attempts, bytes_in=250, bytes_out=900, detail="note"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "info",
        "environment": "staging",
        "event": "request",
        "request_id": "req_1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "tenant": "acme",
        "key": "acme-ci",
        "scenario": "support",
        "variant": "base",
        "generation": 0,
        "backend": "qwen",
        "provider": "openai",
        "attempts": [
            {"backend": "gpt", "outcome": "rate_limited", "ms": 1.234, "detail": "asked for 3 s"},
            {"backend": "qwen", "outcome": "ok", "ms": 400.0},
        ],
        "status": 200,
        "code": "",
        "outcome": "ok",
        "cache": "",
        "stream": True,
        "stream_end": "complete",
        "tokens": {"input": 16, "cached": 4, "output": 5, "estimated": False},
        "cost_usd": "0.000012300",
        "duration_ms": 500.0,
        "overhead_ms": pytest.approx(50.0, abs=0.002),
        "ttft_ms": pytest.approx(20.0, abs=0.002),
        "upstream_ms": 400.0,
        "queue_ms": 0.0,
        "client_ms": 50.0,
        "bytes": {"in": 250, "out": 900},
        "dropped": [],
        "client_ip": "10.0.0.1",
        "detail": "note",
    }


def test_a_refused_request_has_a_line_of_the_same_shape(log_of: LogOf) -> None:
    """What is not known is empty or null; nothing is left out."""
    full = log_of(stream_record())
    line = log_of(RequestRecord(status=401, error_code="invalid_api_key"))
    assert line.keys() == full.keys()
    assert (line["tenant"], line["tokens"], line["ttft_ms"], line["attempts"]) == ("", None, None, [])
    assert (line["status"], line["code"], line["level"]) == (401, "invalid_api_key", "info")


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info"), (429, "info"), (499, "info"), (500, "error"), (504, "error")]
)
def test_what_we_failed_at_is_an_error(log_of: LogOf, status: int, level: str) -> None:
    """A caller's mistakes are not."""
    assert log_of(record(status=status))["level"] == level


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (1_500_000_000, "1.500000000"), (10**18 + 7, "1000000000.000000007")],
)
def test_cost_is_an_exact_decimal(log_of: LogOf, nano_usd: int, text: str) -> None:
    """In USD with nine decimals."""
    assert log_of(record(cost_nano_usd=nano_usd))["cost_usd"] == text


def test_estimated_usage_is_marked(log_of: LogOf) -> None:
    """So that nobody bills it for reported."""
    line = log_of(record(usage=Usage(input_tokens=1, output_tokens=2, estimated=True)))
    assert line["tokens"] == {"input": 1, "cached": 0, "output": 2, "estimated": True}
    line = log_of(
        record(usage=Usage(input_tokens=9, cache_written_input_tokens=4, output_tokens=3, reasoning_tokens=2))
    )
    parts = {"cache_written": 4, "reasoning": 2}
    assert line["tokens"] == {"input": 9, "cached": 0, "output": 3, "estimated": False} | parts


def test_overhead_is_never_negative(log_of: LogOf) -> None:
    """Clocks are read at different moments."""
    assert log_of(record(upstream_wait_s=9.0))["overhead_ms"] == 0


def test_details_are_cut(log_of: LogOf) -> None:
    """A line stays small whatever a backend says."""
    line = log_of(record(detail="x" * 5000, attempts=[("qwen", "reset", 0.1, "y" * 5000)]))
    assert len(line["detail"]) == 1000
    assert len(line["attempts"][0]["detail"]) == 200


def test_text_that_cannot_be_encoded_does_not_lose_the_line(log_of: LogOf) -> None:
    """A lone surrogate from bytes that were decoded leniently becomes a question mark, newlines stay inside."""
    line = log_of(record(detail="bad \udcff\nbyte", attempts=[("qwen", "protocol_error", 0.1, "\ud800")]))
    assert line["detail"] == "bad ?\nbyte"
    assert line["attempts"][0]["detail"] == "?"
    assert line["tokens"]["input"] == 16


def test_a_process_whose_output_nobody_reads_works_and_ends() -> None:
    """Ten thousand lines into a full pipe neither stall it nor keep it from exiting."""
    script = """
import asyncio, sys
from gateway.telemetry import AccessLog, LineWriter, Metrics, RequestRecord, configure_logging
import logging

async def main():
    metrics = Metrics(version="1")
    writer = LineWriter(max_lines=1000, on_dropped=metrics.log_lines_dropped)
    configure_logging("info", "test", writer)
    log = AccessLog(writer)
    loop = asyncio.get_running_loop()
    worst = 0.0
    for _ in range(100):
        before = loop.time()
        for _ in range(100):
            log.write(RequestRecord(detail="x" * 900))
        logging.getLogger("gateway").info("still here")
        await asyncio.sleep(0)
        worst = max(worst, loop.time() - before)
    flushed = log.close(0.1)
    dropped = [line for line in metrics.render()[0].decode().splitlines() if line.startswith("llm_gateway_log_lines")]
    print(flushed, worst < 2, float(dropped[0].split()[1]) > 8000, file=sys.stderr)

asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stderr
    assert process.stdout
    assert process.stderr.read().split() == ["False", "True", "True"]
    assert process.wait(20) == 0
    process.stdout.close()
    process.stderr.close()
