"""Images and files of a chat as blocks of Messages; pure.

What is given by URL is fetched by the provider, never by the gateway.

Source: https://platform.claude.com/docs/en/build-with-claude/vision and .../build-with-claude/pdf-support
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Final, NamedTuple

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.errors import InvalidRequest

_DATA_URL = re.compile(r"data:([A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+)(?:;[A-Za-z0-9-]+=[^;,]*)*;base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_TEXT: Final = "text/plain"


class _Data(NamedTuple):
    media_type: str
    base64: str


def image_block(part: form.Image, place: str) -> schema.ImageBlock:
    """An image. Raises InvalidRequest, naming the place."""
    url, field = part.image_url.url, f"{place}.image_url.url"
    source: schema.Base64Source | schema.UrlSource
    if _is_remote(url):
        source = schema.UrlSource(url=url)
    else:
        data = _data_of(url, field)
        if data.media_type not in IMAGE_TYPES:
            raise _wrong(field, f"must be an image of type {', '.join(IMAGE_TYPES)}")
        source = schema.Base64Source(media_type=data.media_type, data=data.base64)
    return schema.ImageBlock(source=source, cache_control=form.given(part.cache_control))


def document_block(part: form.File, place: str) -> schema.DocumentBlock:
    """A PDF or a text; ``file_data`` is given. Raises InvalidRequest, naming the place."""
    url, field = part.file.file_data or "", f"{place}.file.file_data"
    source: schema.Base64Source | schema.UrlSource | schema.TextSource
    if _is_remote(url):
        source = schema.UrlSource(url=url)
    else:
        data = _data_of(url, field)
        if data.media_type == _PDF:
            source = schema.Base64Source(media_type=_PDF, data=data.base64)
        elif data.media_type == _TEXT:
            source = schema.TextSource(media_type=_TEXT, data=_text_of(data.base64, field))
        else:
            raise _wrong(field, f"must be a file of type {_PDF} or {_TEXT}")
    return schema.DocumentBlock(
        source=source, title=part.file.filename or None, cache_control=form.given(part.cache_control)
    )


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("https://", "http://"))


def _data_of(url: str, field: str) -> _Data:
    head = _DATA_URL.match(url)
    if head is None:
        raise _wrong(field, "must be an https: URL or a data: URL in base64")
    data = url[head.end() :]
    if len(data) % 4 or not _BASE64.fullmatch(data):
        raise _wrong(field, "holds no valid base64")
    return _Data(head.group(1).lower(), data)


def _text_of(base64: str, field: str) -> str:
    try:
        return b64decode(base64, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _wrong(field, "holds no text in UTF-8") from None


def _wrong(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` {what}.", param=field)
