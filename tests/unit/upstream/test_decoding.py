"""Content codings: every form at every split, in bounded steps."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import AttemptFailed
from gateway.upstream.decoding import Decoder

STEP = 65_536


def packed(data: bytes, form: str, level: int = 6) -> bytes:
    """``data`` compressed; ``raw`` is deflate without the zlib wrapper."""
    if form == "gzip":
        return gzip.compress(data, level, mtime=0)
    packer = zlib.compressobj(level, wbits=-zlib.MAX_WBITS if form == "raw" else zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def coding_of(form: str) -> str:
    """The name that servers give to a form."""
    return "gzip" if form == "gzip" else "deflate"


def unpacked(decoder: Decoder, pieces: list[bytes]) -> bytes:
    """Everything, with the bound on each step checked."""
    steps = [step for piece in pieces for step in decoder.decode(piece)]
    assert all(0 < len(step) <= STEP for step in steps)
    return b"".join(steps)


FORMS = st.sampled_from(["gzip", "zlib", "raw"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), FORMS, st.integers(0, 9), st.lists(st.integers(0, 400), max_size=6))
def test_any_body_at_any_split(data: bytes, form: str, level: int, points: list[int]) -> None:
    """gzip, zlib and raw deflate come out as they went in, however they arrive."""
    body = packed(data, form, level)
    if form == "raw" and int.from_bytes(body[:2], "big") % 31 == 0 and body[0] & 0x0F == 8:
        return  # cannot be told from zlib
    cuts = [0, *sorted(min(point, len(body)) for point in points), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(cuts) if start < end]
    decoder = Decoder(coding_of(form))
    assert unpacked(decoder, pieces) == data
    assert decoder.finished


@pytest.mark.parametrize("form", ["gzip", "zlib", "raw"])
@pytest.mark.parametrize("size", [STEP - 1, STEP, STEP + 1, STEP + 257, 3 * STEP, 3 * STEP + 100])
def test_bodies_around_the_step(form: str, size: int) -> None:
    """No byte is lost where output fills a step exactly."""
    decoder = Decoder(coding_of(form))
    assert unpacked(decoder, [packed(b"\0" * size, form)]) == b"\0" * size
    assert decoder.finished


def test_a_bomb_is_unpacked_only_as_far_as_it_is_read() -> None:
    """A small piece that expands a thousandfold gives one step at a time."""
    steps = Decoder("gzip").decode(packed(b"\0" * 100_000_000, "gzip", 9))
    assert [len(next(steps)) for _ in range(3)] == [STEP] * 3


@pytest.mark.parametrize("coding", ["br", "zstd", "identity", "", "gzip, gzip"])
def test_other_codings_are_refused(coding: str) -> None:
    """By name, before anything is read."""
    with pytest.raises(AttemptFailed, match="unsupported content-encoding"):
        Decoder(coding)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"plain text"),
        ("deflate", b"\xff\xff\xff\xff"),
        ("gzip", packed(b"data", "gzip") + b"more"),
        ("gzip", packed(b"data", "gzip")[:-4] + b"\0\0\0\0"),
        ("gzip", packed(b"data", "raw")),
    ],
)
def test_bad_bodies(coding: str, body: bytes) -> None:
    """What is not what it says, or goes on after its end, is an error."""
    with pytest.raises(AttemptFailed) as failure:
        unpacked(Decoder(coding), [body])
    assert failure.value.outcome == "protocol_error"


@pytest.mark.parametrize("body", [b"", packed(b"data", "gzip")[:1], packed(b"data", "gzip")[:-1]])
def test_a_body_cut_short_is_not_finished(body: bytes) -> None:
    """Whoever reads it is to say so."""
    decoder = Decoder("gzip")
    unpacked(decoder, [body])
    assert not decoder.finished
