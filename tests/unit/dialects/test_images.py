"""Images in messages: found as such, at a bounded cost."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.dialects.openai.images import LOOKED_AT_MAX, find_images

START = b'[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
END = b'"}}]}]'


def test_messages_without_an_image() -> None:
    """Nothing is left out, whatever the text says."""
    assert find_images(b'[{"role":"user","content":"hi"}]') == (0, 0)
    assert find_images(b'[{"role":"user","content":"an image_url of data:image/png"}]') == (0, 0)


@pytest.mark.parametrize("pixels", [b"", b"iVBORw0KGgo", b"a\\/b\\/", b"\\/" * 3])
def test_the_data_of_an_image(pixels: bytes) -> None:
    """With its quotes, also where its slashes are escaped."""
    assert find_images(START + pixels + END) == (1, len(b'"data:image/png;base64,"') + len(pixels))


@pytest.mark.parametrize("inside", [b"\\n", b"\\u0022", b'\\"'])
def test_what_no_image_holds_is_text(inside: bytes) -> None:
    """An escape other than that of a slash: all of it counts as text, and as an image too."""
    images, data_bytes = find_images(START + b"AAAA" + inside + b"BBBB" + END)
    assert images >= 1
    assert data_bytes == 0


@pytest.mark.parametrize("piece", [b"A", b"\\/", b"A" * 63 + b"\\/"])
@pytest.mark.parametrize("end", [END, b"\\n" + END])
def test_megabytes_of_data_take_no_memory(piece: bytes, end: bytes) -> None:
    """A body may be as large as it may be; its images are looked at once and nothing is kept of them."""
    messages = START + piece * (1_000_000 // len(piece)) + end
    tracemalloc.start()
    find_images(messages)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_of_very_many_images_every_one_counts() -> None:
    """The data of the first ones is left out, that of the others is text."""
    one = b'"image_url":{"url":"data:image/png;base64,AAAA"}'
    images, data_bytes = find_images(one * (LOOKED_AT_MAX + 5))
    assert images == LOOKED_AT_MAX + 5
    assert data_bytes == LOOKED_AT_MAX * len(b'"data:image/png;base64,AAAA"')


def test_letters_that_are_hidden_may_be_images() -> None:
    """Each of them, since a key can be written so."""
    assert find_images(rb'{"\u0069mage_url": "\u00e9 \u0041 \u007a"}') == (3, 0)
