"""Parts of chat messages as blocks of Converse.

Invariant: what a block cannot say is refused by its place in the request, or left out and noted where the scenario is
lenient. Nothing is fetched: what is not in the request cannot be sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Literal

import msgspec

from gateway.dialects import form
from gateway.dialects.ask import Ask
from gateway.dialects.bedrock import schema
from gateway.errors import InvalidRequest

_IMAGE_FORMATS: Final[Mapping[str, str]] = {
    "image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp",
}  # fmt: skip
_DOCUMENT_FORMATS: Final[Mapping[str, str]] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_AUDIO_FORMATS = frozenset({"mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "m4a", "mpeg", "pcm", "webm"})
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[a-z-]+=[\w.-]+)*;base64,", re.IGNORECASE | re.ASCII)
_DOCUMENT_NAME_MAX = 200
_NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9\-()\[\]]+")
_is_id = re.compile(r"[a-zA-Z0-9_.:-]{1,64}").fullmatch


class _CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | msgspec.UnsetType = msgspec.UNSET


_decode_cache_control = msgspec.json.Decoder(_CacheControl).decode


class Blocks:
    """Makes the blocks of one request. Documents get names of their own, as the service demands."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._names: set[str] = set()

    def of_part(self, part: form.Part, place: str) -> schema.Block | None:
        """The block of one part; None where there is nothing to say. Raises InvalidRequest."""
        match part:
            case form.Text():
                return schema.Block(text=part.text) if part.text else None
            case form.Refusal():
                return schema.Block(text=part.refusal) if part.refusal else None
            case form.Image():
                image = self._image(part.image_url, f"{place}.image_url")
                return None if image is None else schema.Block(image=image)
            case form.File():
                document = self._document(part.file, f"{place}.file")
                return None if document is None else schema.Block(document=document)
            case form.Audio():
                return self._audio(part.input_audio, f"{place}.input_audio")

    def cache_point(self, marker: object, place: str) -> schema.CachePoint | None:
        """What a ``cache_control`` asks for; None where there is none. Raises InvalidRequest."""
        if not isinstance(marker, msgspec.Raw) or bytes(marker) == b"null":
            return None
        try:
            asked = _decode_cache_control(marker)
        except msgspec.DecodeError:
            self._ask.cannot(f"{place}.cache_control", "it is known as ephemeral, with a ttl of 5m or 1h")
            return None
        return schema.CachePoint(ttl=asked.ttl)

    def _image(self, image: form.ImageUrl, place: str) -> schema.Media | None:
        given = self._data(image.url, f"{place}.url")
        if given is None:
            return None
        kind, data = given
        name = _IMAGE_FORMATS.get(kind)
        if name is None:
            self._ask.cannot(f"{place}.url", "an image must be PNG, JPEG, GIF or WebP")
            return None
        return schema.Media(format=name, source=schema.Data(bytes=data))

    def _document(self, file: form.FileData, place: str) -> schema.Document | None:
        if file.file_data is None:
            self._ask.cannot(f"{place}.file_id", "a file must be given as a data: URL in file_data")
            return None
        given = self._data(file.file_data, f"{place}.file_data")
        if given is None:
            return None
        kind, data = given
        name = _DOCUMENT_FORMATS.get(kind)
        if name is None:
            self._ask.cannot(f"{place}.file_data", "a document must be PDF, CSV, Word, Excel, HTML, text or Markdown")
            return None
        return schema.Document(format=name, name=self._name_of(file), source=schema.Data(bytes=data))

    def _name_of(self, file: form.FileData) -> str:
        """A name that the service takes, which no other document of this request has."""
        stem = (file.filename or "").rpartition(".")[0] or file.filename or ""
        name = wanted = _NOT_OF_NAMES.sub(" ", stem).strip()[: _DOCUMENT_NAME_MAX - 8].strip() or "document"
        number = 1
        while name in self._names:
            number += 1
            name = f"{wanted} {number}"
        self._names.add(name)
        return name

    def _audio(self, audio: form.AudioData, place: str) -> schema.Block | None:
        if audio.format not in _AUDIO_FORMATS:
            self._ask.cannot(f"{place}.format")
            return None
        _check_base64(audio.data, f"{place}.data")
        return schema.Block(audio=schema.Media(format=audio.format, source=schema.Data(bytes=audio.data)))

    def _data(self, url: str, place: str) -> tuple[str, str] | None:
        """Media type and base64 of a ``data:`` URL (RFC 2397). Raises InvalidRequest."""
        match = _DATA_URL.match(url)
        if match is None:
            if url[:5].lower() == "data:":
                raise InvalidRequest(f"`{place}` must be a data: URL in base64.", param=place)
            self._ask.cannot(place, "it takes data: URLs only, nothing is fetched")
            return None
        data = url[match.end() :]
        _check_base64(data, place)
        return match[1].lower(), data


def _check_base64(data: str, place: str) -> None:
    try:
        is_good = bool(base64.b64decode(data, validate=True))
    except ValueError:
        is_good = False
    if not is_good:
        raise InvalidRequest(f"`{place}` is not base64.", param=place)


def tool_use_id(given: str) -> str:
    """The id of a call as the service takes it: the same one for the call and for its result."""
    return given if _is_id(given) else "call-" + sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:32]
