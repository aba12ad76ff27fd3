"""Images, sound and documents of a chat request as Gemini takes them: base64 data, or a place that it fetches itself.

Invariant: a place that would be read with the rights of the gateway's own account, which is any of Google's, is only
named where the backend allows it. The gateway itself fetches nothing.

Source: https://ai.google.dev/gemini-api/docs/file-input-methods, RFC 2397 (``data:`` URLs).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from gateway.dialects import form
from gateway.dialects.gemini.schema import Blob, FileData

_DATA_URL = re.compile(r"data:([a-zA-Z0-9.+-]{1,64}/[a-zA-Z0-9.+-]{1,128});base64,")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_AUDIO_TYPES = {
    "wav": "audio/wav", "mp3": "audio/mp3", "aiff": "audio/aiff", "aac": "audio/aac", "ogg": "audio/ogg",
    "flac": "audio/flac",
}  # fmt: skip
_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "txt": "text/plain", "csv": "text/csv",
    "html": "text/html", "md": "text/md", "wav": "audio/wav", "mp3": "audio/mp3", "mp4": "video/mp4",
    "mov": "video/mov", "webm": "video/webm",
}  # fmt: skip
"""What a place holds, by the end of its name: nobody looks into it before Gemini does."""

_OWN_FILE = re.compile(r"https://generativelanguage\.googleapis\.com/v1(beta|alpha)?/files/[a-z0-9-]+")
_GOOGLE = ("googleapis.com", "google.com", "googleusercontent.com", "goog")
_URL_CHARS_MAX = 2048


class NotTaken(Exception):
    """Why a part cannot be sent; the text is for the caller."""


def image_of(part: form.Image, allowed: Sequence[str]) -> Blob | FileData:
    """An image. ``allowed``: prefixes of Google's own places that may be named. Raises NotTaken."""
    url = part.image_url.url
    return blob_of(url) if url.startswith("data:") else place_of(url, allowed)


def audio_of(part: form.Audio) -> Blob:
    """Sound. Raises NotTaken."""
    mime_type = _AUDIO_TYPES.get(part.input_audio.format)
    if mime_type is None:
        raise NotTaken(f"it takes sound as {', '.join(_AUDIO_TYPES)}")
    return blob_of(f"data:{mime_type};base64,{part.input_audio.data}")


def file_of(part: form.File, allowed: Sequence[str]) -> Blob | FileData:
    """A document: its data, or its address where a provider's id would be. Raises NotTaken."""
    file = part.file
    if file.file_data is not None:
        return blob_of(file.file_data)
    if file.file_id is None:
        raise NotTaken("it has neither file_data nor file_id")
    return place_of(file.file_id, allowed)


def blob_of(url: str) -> Blob:
    """The data of a ``data:`` URL in base64. Raises NotTaken."""
    found = _DATA_URL.match(url)
    data = "" if found is None else url[found.end() :]
    if found is None or not _is_base64(data):
        raise NotTaken("it must be a data: URL with a media type and base64 data")
    return Blob(mime_type=found[1].lower(), data=data)


def place_of(url: str, allowed: Sequence[str]) -> FileData:
    """An ``https:`` or ``gs:`` URL that Gemini reads. Raises NotTaken."""
    if len(url) > _URL_CHARS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise NotTaken("it is no URL")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        raise NotTaken("it is no URL") from None
    if parts.scheme not in ("https", "gs") or not host or "@" in parts.netloc:
        raise NotTaken("it must be a data: URL or an https: URL")
    if parts.scheme == "gs" or _is_of_google(host):
        if ".." in parts.path or not any(url.startswith(prefix) for prefix in allowed):
            raise NotTaken("this place may not be read for callers")
        if _OWN_FILE.fullmatch(url):
            return FileData(file_uri=url)  # of which Gemini knows the type
    mime_type = _TYPES.get(parts.path.rpartition(".")[2].lower())
    if mime_type is None:
        raise NotTaken("its type cannot be told from the end of its path; send the data in a data: URL")
    return FileData(file_uri=url, mime_type=mime_type)


def _is_base64(data: str) -> bool:
    """Whether it is some (RFC 4648, 4). Megabytes of it take milliseconds."""
    if not data or len(data) % 4 or not data.isascii():
        return False
    padding = data.encode().translate(None, _BASE64)
    return padding in (b"", b"=", b"==") and data.endswith(padding.decode())


def _is_of_google(host: str) -> bool:
    return any(host == name or host.endswith("." + name) for name in _GOOGLE)
