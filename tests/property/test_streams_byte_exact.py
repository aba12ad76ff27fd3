"""Byte-exactness through the shipped process and real sockets: what the backend streamed is what the client reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.client import RawClient
from tests.support.documents import new_key, openai_registry
from tests.support.gateway import GatewayProcess
from tests.support.lane import PATH, ask_for
from tests.support.scripts import (
    DONE,
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


@dataclass(frozen=True)
class Way:
    """How a stream goes over the wire: transfer chunks cut at ``points``, writes cut at ``cuts``, pauses in seconds."""

    points: list[int]
    cuts: list[int]
    pauses_s: list[float]
    framing: Framing


POINTS = st.lists(st.integers(0, 20_000), max_size=15)
PAUSES_S = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.005]), min_size=1, max_size=6)
FRAMINGS = st.sampled_from(["chunked", "chunked", "length", "close"])
WAYS = st.builds(Way, POINTS, POINTS, PAUSES_S, FRAMINGS)


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


def played(data: bytes, way: Way) -> Script:
    """A stream of ``data``, sent this way."""
    chunked = way.framing == "chunked"
    wire = b"".join(map(chunk, split(data, way.points))) + LAST_CHUNK if chunked else data
    steps: list[Step] = [Send(head(200, [SSE_TYPE, *framing_headers(way.framing, len(data))]))]
    for index, piece in enumerate(split(wire, way.cuts)):
        pause_s = way.pauses_s[index % len(way.pauses_s)]
        steps += [Send(piece), *([Pause(pause_s)] if pause_s else [])]
    return Script((*steps, Close()) if way.framing == "close" else tuple(steps))


@settings(max_examples=600, deadline=None)
@given(streams(), st.booleans(), WAYS)
def test_what_was_streamed_is_what_is_read(path: Path, sent: list[Event], include_usage: bool, way: Way) -> None:
    """Every byte in order, for any content, chunking and delay; less the usage event where it was not asked for."""
    if way.framing == "close" and not sent[-1].sent.startswith(b"data: [DONE]"):
        way = replace(way, framing="chunked")  # only ``[DONE]`` can end a stream that the close ends
    data = b"".join(event.sent for event in sent)
    read = path.read(played(data, way), include_usage=include_usage)
    assert read == b"".join(event.sent for event in sent if include_usage or not event.reports_usage)
    assert path.upstream.requests[-1].wants_usage()


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_long_stream_in_random_pieces(path: Path, framing: Framing) -> None:
    """Half a megabyte of events survives pieces of every size."""
    form = b'data: {"choices":[{"index":0,"delta":{"content":"%d%b"}}]}\n\n'
    data = b"".join([form % (number, b"x" * (number % 97)) for number in range(5000)] + [DONE])
    cuts = [(number * 7919) % len(data) for number in range(700)]
    assert path.read(played(data, Way(cuts, cuts[::3], [0.0], framing)), include_usage=False) == data
