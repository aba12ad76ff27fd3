"""Data and places of images, sound and documents."""

from __future__ import annotations

import base64

import pytest

from gateway.dialects.gemini.media import NotTaken, blob_of, place_of

ALLOWED = ("gs://shared/", "https://generativelanguage.googleapis.com/v1beta/files/")


@pytest.mark.parametrize("size", [1, 2, 3, 300_000])
def test_data_is_taken_as_it_is(size: int) -> None:
    """Of any size, with the padding that it has."""
    data = base64.b64encode(bytes(range(256)) * (size // 256) + b"x" * (size % 256)).decode()
    blob = blob_of(f"data:Image/PNG;base64,{data}")
    assert (blob.mime_type, blob.data) == ("image/png", data)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,",
        "data:image/png;base64,AAA",
        "data:image/png;base64,A=AA",
        "data:image/png;base64,AAAA====",
        "data:image/png;base64,AA A",
        "data:image/png;base64,AA-_",
        "data:image/png;base64,ÄÄÄÄ",
        "data:image/png,AAAA",
        "data:image/png;charset=x;base64,AAAA",
        "data:;base64,AAAA",
        "image/png;base64,AAAA",
    ],
)
def test_data_that_is_none(url: str) -> None:
    """It is strict base64 with a media type, or refused."""
    with pytest.raises(NotTaken):
        blob_of(url)


@pytest.mark.parametrize(
    ("url", "mime_type"),
    [
        ("https://pictures.example/a/cat.JPG?x=1#y", "image/jpeg"),
        ("https://notgoogle.com.example/a.pdf", "application/pdf"),
        ("gs://shared/a.png", "image/png"),
        ("https://generativelanguage.googleapis.com/v1beta/files/abc-1", None),
    ],
)
def test_places(url: str, mime_type: str | None) -> None:
    """With the type that the end of the path tells, but for Gemini's own files."""
    place = place_of(url, ALLOWED)
    assert (place.file_uri, place.mime_type) == (url, mime_type)


@pytest.mark.parametrize(
    "url",
    [
        "gs://shared/../other/a.png",
        "gs://other/a.png",
        "gs://sharedother/a.png",
        "GS://other/a.png",
        "https://storage.googleapis.com/b/a.png",
        "https://STORAGE.GOOGLEAPIS.COM/b/a.png",
        "https://storage.googleapis.com./b/a.png",
        "https://drive.google.com/a.png",
        "https://google.com/a.png",
        "https://user@pictures.example/a.png",
        "https:///a.png",
        "https://[::1/a.png",
        "http://pictures.example/a.png",
        "file:///etc/passwd.png",
        "https://pictures.example/a b.png",
        "https://pictures.example/\n.png",
        "https://pictures.example/" + "a" * 2048 + ".png",
        "cat.png",
        "",
    ],
)
def test_places_that_nobody_may_name(url: str) -> None:
    """Those that would be read with the rights of the gateway's account, and those that are none."""
    with pytest.raises(NotTaken):
        place_of(url, ALLOWED)
