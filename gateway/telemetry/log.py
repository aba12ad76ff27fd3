"""One JSON line per request on standard output, and the process's own logs in the same form.

A request's line says who asked for what, what was tried, how it ended, how long each part took and what it cost; never
a prompt, a completion or a credential. Whoever fills ``RequestRecord.detail`` and the details of attempts keeps them
free of those; here they are only cut to a bound.
"""

from __future__ import annotations

import msgspec

from gateway.clock import wall
from gateway.telemetry.families import NANO_USD_PER_USD
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.writer import LineWriter, timestamp

DETAIL_MAX_CHARS = 1000
ATTEMPT_DETAIL_MAX_CHARS = 200


class _Attempt(msgspec.Struct, omit_defaults=True, gc=False):
    backend: str
    outcome: str
    ms: float
    detail: str = ""


class _Tokens(msgspec.Struct, omit_defaults=True, gc=False):
    input: int
    cached: int
    output: int
    estimated: bool
    cache_written: int = 0
    reasoning: int = 0


class _Bytes(msgspec.Struct, gc=False):
    in_: int = msgspec.field(name="in")
    out: int = 0


class _Line(msgspec.Struct, gc=False):
    """The fields of a request's line, in their order."""

    ts: str
    level: str
    environment: str
    event: str
    request_id: str
    trace_id: str
    tenant: str
    key: str
    scenario: str
    variant: str
    generation: int
    backend: str
    provider: str
    attempts: list[_Attempt]
    status: int
    code: str
    outcome: str
    cache: str
    stream: bool
    stream_end: str | None
    tokens: _Tokens | None
    cost_usd: str
    duration_ms: float
    overhead_ms: float
    ttft_ms: float | None
    upstream_ms: float
    client_ms: float
    queue_ms: float
    bytes: _Bytes
    dropped: tuple[str, ...]
    client_ip: str
    detail: str


class AccessLog:
    """Writes a line for each finished request, whatever the level of the process's own logs.

    ``environment`` is the deployment's name for information. Belongs to one event loop.
    """

    def __init__(self, writer: LineWriter, *, environment: str = "") -> None:
        self._writer = writer
        self._environment = environment
        self._encode = msgspec.json.Encoder().encode
        self._second = self._millisecond = -1  # of the time made last
        self._date = self._time = ""

    def write(self, record: RequestRecord) -> None:
        """Queue the line of this request. Never blocks."""
        line = self._line(record)
        try:
            encoded = self._encode(line)
        except UnicodeEncodeError:  # a lone surrogate, from bytes that somebody decoded leniently
            encoded = _encode_lenient(line)
        self._writer.put(encoded + b"\n")

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until all lines are written, at most ``timeout_s``; whether they are. Blocks the caller."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Flush and end the writer's thread; lines that come later start it anew. Blocks the caller."""
        return self._writer.close(timeout_s)

    def _line(self, record: RequestRecord) -> _Line:
        started_at = record.started_at
        duration_s = record.finished_at - started_at
        upstream_s = record.upstream_wait_s
        client_s = record.client_wait_s
        queue_s = record.queue_wait_s
        overhead_s = duration_s - upstream_s - client_s - queue_s
        status = record.status
        cost = record.cost_nano_usd
        usage = record.usage
        # Milliseconds with three decimals, spelled out since a call of round() costs more than all else in a line.
        return _Line(
            self._now(),
            "error" if status >= 500 and record.event == "request" else "info",
            self._environment,
            record.event,
            record.request_id,
            record.trace.trace_id,
            record.tenant,
            record.key,
            record.scenario,
            record.variant,
            record.generation,
            record.backend,
            record.provider,
            [
                _Attempt(backend, outcome, int(took_s * 1e6) / 1e3, detail and detail[:ATTEMPT_DETAIL_MAX_CHARS])
                for backend, outcome, took_s, detail in record.attempts
            ],
            status,
            record.error_code,
            record.outcome,
            record.cache,
            record.stream,
            record.stream_end_reason,
            None
            if usage is None
            else _Tokens(
                usage.input_tokens,
                usage.cached_input_tokens,
                usage.output_tokens,
                usage.estimated,
                usage.cache_written_input_tokens,
                usage.reasoning_tokens,
            ),
            "%d.%09d" % divmod(cost, NANO_USD_PER_USD) if cost else "0.000000000",
            int(duration_s * 1e6) / 1e3,
            int(overhead_s * 1e6) / 1e3 if overhead_s > 0.0 else 0.0,
            None
            if (first_token_at := record.first_token_at) is None
            else int((first_token_at - started_at) * 1e6) / 1e3,
            int(upstream_s * 1e6) / 1e3,
            int(client_s * 1e6) / 1e3,
            int(queue_s * 1e6) / 1e3 if queue_s else 0.0,
            _Bytes(record.bytes_in, record.bytes_out),
            record.dropped_fields,
            record.client_ip,
            record.detail and record.detail[:DETAIL_MAX_CHARS],
        )

    def _now(self) -> str:
        """The time as ``timestamp`` has it, made once per millisecond, its date and seconds once per second."""
        millisecond = int(wall() * 1000)
        if millisecond == self._millisecond:
            return self._time
        self._millisecond = millisecond
        second, rest = divmod(millisecond, 1000)
        if second != self._second:
            self._second = second
            self._date = timestamp(second).removesuffix("000Z")
        self._time = "%s%03dZ" % (self._date, rest)
        return self._time


def _encode_lenient(line: _Line) -> bytes:
    """The line with what is no Unicode replaced, at any depth."""
    return msgspec.json.encode(_replaced(msgspec.to_builtins(line)))


def _replaced(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item) for key, item in value.items()}
    return value
