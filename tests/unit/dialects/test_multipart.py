"""Forms are seen part by part, wherever they are cut, and what could be read in two ways is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.multipart import HEADER_BYTES_MAX, FormScanner, Part, plain_name, read_boundary, text_part
from gateway.errors import InvalidRequest

BOUNDARY = b"xYz-1"


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form of fields."""
    return b"".join(text_part(BOUNDARY, name, value) + b"\r\n" for name, value in parts) + b"--xYz-1--\r\n"


def scanned(body: bytes, cuts: list[int] | None = None) -> list[Part]:
    """The parts of a whole form that comes in pieces."""
    scanner = FormScanner(BOUNDARY, 20)
    points = [0, *sorted(cut % (len(body) + 1) for cut in cuts or ()), len(body)]
    for start, end in itertools.pairwise(points):
        scanner.feed(body[start:end])
    scanner.end()
    return scanner.parts


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.from_regex(r"[A-Za-z0-9_.-]{1,12}(\[\])?", fullmatch=True), st.binary(max_size=200)), max_size=8
    ),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_every_part_is_seen_wherever_it_is_cut(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """With its name, and with the place of its content and of all of it."""
    kept = [(name, value) for name, value in parts if b"--" + BOUNDARY not in value]
    body = form(*kept) if kept else form(("only", b""))
    found = scanned(body, cuts)
    assert [(part.name, body[part.content : part.end]) for part in found] == (kept or [("only", b"")])
    for part in found:
        assert body[part.begin : part.end] == text_part(BOUNDARY, part.name, body[part.content : part.end])


def test_a_file_is_known_as_one() -> None:
    """By its name, in either form."""
    for name in (b'filename="a%22b.wav"', b"filename*=UTF-8''a.wav", b'filename=""'):
        body = b'--xYz-1\r\ncontent-disposition: form-data; name="file"; %b\r\n\r\nx\r\n--xYz-1--' % name
        assert scanned(body)[0].is_file


@pytest.mark.parametrize("byte_by_byte", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        b"preamble\r\n" + form(("a", b"1")),
        form(("a", b"1"))[:-4],
        form(("a", b"1")) + b"more",
        form(("a", b"1\n--xYz-1\n")),
        form(("a", b"1--xYz-1")),
        form(("a", b"1\r\n--xYz-1 \r\n")),
        form(("a", b"1")).replace(b"--xYz-1\r\n", b"--xYz-1\n"),
        form(("a", b"1")).replace(b'name="a"', b'name="a"; name="b"'),
        form(("a", b"1")).replace(b'name="a"', b"name*=utf-8''a"),
        form(("a", b"1")).replace(b'name="a"', b'name="a\\"b"'),
        form(("a", b"1")).replace(b'name="a"', b'name="a"; b="x\\\\"; c="; name=model; d="'),
        form(("a", b"1")).replace(b'name="a"', b'name="a"; other="b"'),
        form(("a", b"1")).replace(b'name="a"', b'name="a"; filename="b"; filename="c"'),
        form(("a", b"1")).replace(b'name="a"', b'name=""'),
        form(("a", b"1")).replace(b'name="a"', b'name = "a"'),
        form(("a", b"1")).replace(b"; name", b";\r\n name"),
        form(("a", b"1")).replace(b"Content-Disposition", b"Content-Disposition "),
        form(("a", b"1")).replace(b"form-data", b"attachment"),
        form(("a", b"1")).replace(b'name="a"', b'name="a"\r\nContent-Transfer-Encoding: quoted-printable'),
        form(("a", b"1")).replace(b'name="a"', b'name="a"\r\nX: ' + b"x" * HEADER_BYTES_MAX),
        form(*[("a", b"1")] * 21),
        b"",
    ],
)
def test_what_is_ambiguous_is_refused(body: bytes, byte_by_byte: bool) -> None:
    """In one piece or in many."""
    with pytest.raises(InvalidRequest) as caught:
        scanned(body, list(range(len(body))) if byte_by_byte else None)
    assert caught.value.code == "invalid_multipart"


def test_what_is_held_is_little() -> None:
    """Of content no more than might be the beginning of a boundary."""
    scanner = FormScanner(BOUNDARY, 20)
    scanner.feed(form(("a", b"x" * 1_000_000))[:900_000])
    assert len(scanner._buffer) < 20


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data;boundary="a b"', None),
        (b'multipart/form-data; boundary="a:b"', b"a:b"),
        (b"multipart/form-data", None),
        (b"multipart/mixed; boundary=abc", None),
        (b"multipart/form-data; boundary=a; boundary=b", None),
        (b"", None),
    ],
)
def test_the_boundary(content_type: bytes, boundary: bytes | None) -> None:
    """One, and plain."""
    if boundary is not None:
        assert read_boundary(content_type) == boundary
        return
    with pytest.raises(InvalidRequest):
        read_boundary(content_type)


def test_names_that_servers_take_for_one() -> None:
    """Capitals and brackets make no other name."""
    assert {plain_name(name) for name in ("Model", "model[]", "MODEL[0]")} == {"model"}
