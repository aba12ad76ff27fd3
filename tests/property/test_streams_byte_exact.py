"""Byte-exactness through the shipped process and real sockets: what the backend streamed is what the client reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import RawClient
from tests.support.documents import new_key, openai_registry
from tests.support.gateway import GatewayProcess
from tests.support.lane import PATH, ask_for
from tests.support.scripts import (
    LAST_CHUNK,
    SSE_TYPE,
    Close,
    Framing,
    Pause,
    Script,
    Send,
    Step,
    chunk,
    framing_headers,
    head,
)
from tests.support.sse import Event, split, streams
from tests.support.upstream import ScriptedUpstream

POINTS = st.lists(st.integers(0, 20_000), max_size=15)
PAUSES_S = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.005]), min_size=1, max_size=6)


class Path:
    """One long-lived client connection, gateway and backend."""

    def __init__(self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: RawClient) -> None:
        self.gateway, self.upstream, self.client = gateway, upstream, client

    def read(self, script: Script, *, include_usage: bool) -> bytes:
        """What the client reads when the backend plays ``script``."""
        self.upstream.enqueue(script)
        options = {"stream_options": {"include_usage": True}} if include_usage else {}
        answer = self.client.request(PATH, ask_for("chat", stream=True, **options), key=self.gateway.key)
        assert answer.status == 200, answer
        return answer.body


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """Open for the whole module."""
    key = new_key()
    with (
        ScriptedUpstream() as upstream,
        GatewayProcess(openai_registry(upstream.url, key), key=key) as gateway,
        gateway.client() as client,
    ):
        yield Path(gateway, upstream, client)
        gateway.assert_nothing_in_flight()


def played(data: bytes, points: list[int], cuts: list[int], pauses_s: list[float], framing: Framing) -> Script:
    """``data`` in transfer chunks cut at ``points``, written in pieces cut at ``cuts``, with pauses between them."""
    wire = b"".join(map(chunk, split(data, points))) + LAST_CHUNK if framing == "chunked" else data
    steps: list[Step] = [Send(head(200, [SSE_TYPE, *framing_headers(framing, len(data))]))]
    for index, piece in enumerate(split(wire, cuts)):
        pause_s = pauses_s[index % len(pauses_s)]
        steps += [Send(piece), *([Pause(pause_s)] if pause_s else [])]
    return Script(tuple(steps + ([Close()] if framing == "close" else [])))


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=streams(),
    include_usage=st.booleans(),
    points=POINTS,
    cuts=POINTS,
    pauses_s=PAUSES_S,
    framing=st.sampled_from(["chunked", "chunked", "length", "close"]),
)
def test_what_was_streamed_is_what_is_read(
    path: Path,
    sent: list[Event],
    include_usage: bool,
    points: list[int],
    cuts: list[int],
    pauses_s: list[float],
    framing: Framing,
) -> None:
    """Every byte in order, for any content, chunking and delay; less the usage event where it was not asked for."""
    if not sent[-1].sent.startswith(b"data: [DONE]") and framing == "close":
        framing = "chunked"  # only ``[DONE]`` can end a stream that the close ends
    data = b"".join(event.sent for event in sent)
    read = path.read(played(data, points, cuts, pauses_s, framing), include_usage=include_usage)
    assert read == b"".join(event.sent for event in sent if include_usage or not event.reports_usage)
    request = path.upstream.requests[-1]
    assert request.wants_usage()


def test_a_long_stream_in_random_pieces(path: Path) -> None:
    """A megabyte of events survives pieces of every size."""
    events = [
        b'data: {"choices":[{"index":0,"delta":{"content":"%d%b"}}]}\n\n' % (n, b"x" * (n % 97)) for n in range(9000)
    ]
    data = b"".join([*events, b"data: [DONE]\n\n"])
    cuts = [(n * 7919) % len(data) for n in range(700)]
    for framing in ("chunked", "length", "close"):
        assert path.read(played(data, cuts, cuts[::3], [0.0], framing), include_usage=False) == data  # type: ignore[arg-type]
