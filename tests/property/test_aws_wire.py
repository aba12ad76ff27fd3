"""Event streams and signatures of AWS are read and made as AWS's own library does."""

from __future__ import annotations

import datetime
import itertools
import struct
from hashlib import sha256
from unittest import mock
from urllib.parse import quote
from zlib import crc32

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.bedrock.eventstream import Message, MessageReader
from gateway.errors import AttemptFailed
from gateway.model.credentials import AwsKeys
from gateway.upstream.sigv4 import RequestSigner
from tests.support.bedrock import encode_headers, encode_message

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
LETTERS = "aB9 ~-_:%/é€\U0001f600"
NAMES = st.text(LETTERS, min_size=1, max_size=8)
VALUES = st.one_of(
    st.text(LETTERS, max_size=12),
    st.binary(max_size=12),
    st.booleans(),
    st.integers(0, 2**31 - 1),
    st.uuids(),
    st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC)),
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, Message]:
    """A message and what it means, with headers of other kinds and types around those that matter."""
    kind = draw(st.sampled_from(["event", "exception", "error"]))
    name, text, payload = draw(NAMES), draw(st.text(LETTERS, max_size=12)), draw(st.binary(max_size=40))
    named = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}[kind]
    headers = draw(st.dictionaries(NAMES.map("x-".__add__), VALUES, max_size=3))
    headers |= {":message-type": kind, named: name, ":error-message": text}
    shuffled = dict(draw(st.permutations(list(headers.items()))))
    return encode_message(shuffled, payload), Message(kind, name, payload, text)


@given(st.lists(messages(), max_size=5), st.data())
def test_messages_are_the_same_however_they_are_cut(said: list[tuple[bytes, Message]], data: st.DataObject) -> None:
    """Cut anywhere, at every byte too; and AWS's decoder finds the same in them."""
    written = b"".join(each for each, _ in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=6)))
    for places in ([0, *cuts, len(written)], list(range(len(written) + 1))):
        reader = MessageReader(4096)
        found: list[Message] = []
        for start, stop in itertools.pairwise(places):
            found += reader.feed(written[start:stop])
        reader.end()
        assert found == [meant for _, meant in said]
    theirs = EventStreamBuffer()
    theirs.add_data(written)
    for (_, meant), event in zip(said, theirs, strict=True):
        assert (event.headers[":message-type"], event.payload) == (meant.kind, meant.payload)


@given(messages(), st.data())
def test_a_flipped_bit_is_noticed(said: tuple[bytes, Message], data: st.DataObject) -> None:
    """Wherever it is: no message comes of it, whether it is refused at once or waits for what never comes."""
    written = bytearray(said[0])
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(AttemptFailed):
        MessageReader(4096).feed(bytes(written))


@given(messages(), st.data())
def test_a_cut_stream_is_noticed(said: tuple[bytes, Message], data: st.DataObject) -> None:
    """Within its last message, wherever."""
    written = said[0] + said[0]
    reader = MessageReader(4096)
    assert reader.feed(written[: data.draw(st.integers(len(said[0]) + 1, len(written) - 1))]) == [said[1]]
    with pytest.raises(AttemptFailed) as failure:
        reader.end()
    assert failure.value.outcome == "reset"


def test_a_message_has_a_bound() -> None:
    """Its length is believed before it has come, and what is too long is not waited for."""
    written = encode_message({":message-type": "event", ":event-type": "e"}, b"x" * 100)
    assert MessageReader(len(written)).feed(written)
    with pytest.raises(AttemptFailed, match="more than"):
        MessageReader(len(written) - 1).feed(written[:12])


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05abc",  # a name longer than all
        b"\x01a\x0a",  # a type that there is not
        b"\x01a\x07\x00\x09b",  # a text longer than all
        b"\x01a\x07\x00",  # half of its length
        b"\x01a\x04\x00",  # a number that is cut
        b"\x01a\x07\x00\x01\xff",  # no UTF-8
    ],
)
def test_headers_that_make_no_sense_are_refused(headers: bytes) -> None:
    """Though every checksum is right."""
    prelude = struct.pack(">II", 16 + len(headers), len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers
    with pytest.raises(AttemptFailed, match="headers"):
        MessageReader(4096).feed(message + struct.pack(">I", crc32(message)))


@pytest.mark.parametrize(("total", "header_bytes"), [(15, 0), (16, 1), (0, 0), (300_000, 131_073)])
def test_lengths_that_cannot_be_are_refused(total: int, header_bytes: int) -> None:
    """As soon as they have come."""
    prelude = struct.pack(">II", total, header_bytes)
    with pytest.raises(AttemptFailed, match="lengths"):
        MessageReader(1_000_000).feed(prelude + struct.pack(">I", crc32(prelude)))


def test_headers_of_messages_are_remembered_within_bounds() -> None:
    """A stream whose every message has headers of its own makes nobody keep them."""
    reader = MessageReader(4096)
    for number in range(100):
        assert reader.feed(encode_message({":message-type": "event", ":event-type": f"e{number}"}, b"{}"))
    assert len(reader._known) <= 16
    assert encode_headers({"a": True}) == b"\x01a\x00"


SEGMENTS = st.text(LETTERS + ".+*'", max_size=20).filter(lambda text: text not in ("", ".", ".."))
KEYS = st.builds(
    AwsKeys, access_key_id=PRINTABLE, secret_access_key=PRINTABLE, session_token=st.one_of(st.just(""), PRINTABLE)
)


@given(
    KEYS,
    st.lists(SEGMENTS, min_size=1, max_size=4),
    st.binary(max_size=60),
    st.lists(st.integers(946_684_800, 4_102_444_800), min_size=1, max_size=3),
    st.sampled_from(["bedrock-runtime.eu-central-1.amazonaws.com", "127.0.0.1:8443", "[::1]:80"]),
)
def test_signatures_are_those_of_aws(
    keys: AwsKeys, segments: list[str], body: bytes, times: list[int], host: str
) -> None:
    """For any keys, path, body and time, one after the other with one signer."""
    path = "".join("/" + quote(each, safe="") for each in segments)
    signer = RequestSigner(keys, "eu-central-1", "bedrock", host)
    theirs = SigV4Auth(
        Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token or None), "bedrock", "eu-central-1"
    )
    for at in times:
        request = AWSRequest("POST", f"https://{host}{path}", data=body, headers={"host": host})
        now = datetime.datetime.fromtimestamp(at, datetime.UTC)
        with mock.patch("botocore.auth.get_current_datetime", return_value=now):
            theirs.add_auth(request)
        expected = {name.lower(): value for name, value in request.headers.items() if name != "host"}
        lines = signer.lines(path, sha256(body).hexdigest(), at).decode().split("\r\n")
        assert lines.pop() == ""
        assert dict(line.split(": ", 1) for line in lines) == expected
