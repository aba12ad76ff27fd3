"""Messages cut out of a stream of ``application/vnd.amazon.eventstream`` that arrives in pieces.

Invariants:
- However the bytes are cut into pieces, the messages are the same.
- Nothing of a message is believed before both of its checksums are right; what is held is bounded by one message.

Source: https://smithy.io/2.0/aws/amazon-eventstream.html. A message is its length, the length of its headers and the
CRC-32 of these two (each 4 bytes, big endian), then the headers, the payload, and the CRC-32 of all before it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple
from zlib import crc32

from gateway.errors import AttemptFailed

HEADER_BYTES_MAX: Final = 131_072
"""How long the headers of a message may be, by its specification."""

_PRELUDE = struct.Struct(">III")
_CHECKSUM = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_LENGTHS_BYTES = 8  # of the prelude before its own checksum
_LEAST_BYTES = _PRELUDE.size + _CHECKSUM.size
_VALUE_BYTES: Final[Mapping[int, int]] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # of types with a fixed size
_BYTES, _STRING = 6, 7  # types of which the length comes first
_KNOWN_MAX = 16


class Message(NamedTuple):
    """One message: ``kind`` is event, exception or error, ``name`` which of them, ``text`` what an error says."""

    kind: str
    name: str
    payload: bytes
    text: str = ""


_NAMES: Final[Mapping[str, str]] = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}


class MessageReader:
    """Reads one stream. A message longer than ``max_message_bytes`` is an error."""

    __slots__ = ("_held", "_known", "_max_message_bytes")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._held = bytearray()
        self._known: dict[bytes, Message] = {}  # headers that came before: there are few, and each comes often

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes. Raises AttemptFailed (protocol_error)."""
        held = self._held
        held += data
        messages: list[Message] = []
        at = 0
        while len(held) - at >= _PRELUDE.size:
            total, header_bytes, checksum = self._prelude(held, at)
            if len(held) - at < total:
                break
            message = bytes(held[at : at + total])
            at += total
            body_end = total - _CHECKSUM.size
            (expected,) = _CHECKSUM.unpack_from(message, body_end)
            if crc32(message[_LENGTHS_BYTES:body_end], checksum) != expected:
                raise _broken("a message with a wrong checksum")
            headers_end = _PRELUDE.size + header_bytes
            known = self._meant_by(message[_PRELUDE.size : headers_end])
            messages.append(known._replace(payload=message[headers_end:body_end]))
        if at:
            del held[:at]
        return messages

    def end(self) -> None:
        """The stream came to its end. Raises AttemptFailed (reset) within a message."""
        if self._held:
            raise AttemptFailed("reset", "the stream ended within a message")

    def _prelude(self, held: bytearray, at: int) -> tuple[int, int, int]:
        """Both lengths and their checksum, which the checksum of the message goes on from."""
        total, header_bytes, checksum = _PRELUDE.unpack_from(held, at)
        if crc32(held[at : at + _LENGTHS_BYTES]) != checksum:
            raise _broken("a message whose prelude has a wrong checksum")
        if total > self._max_message_bytes:
            raise _broken(f"a message of more than {self._max_message_bytes} bytes")
        if header_bytes > HEADER_BYTES_MAX or total < _LEAST_BYTES + header_bytes:
            raise _broken("a message with impossible lengths")
        return total, header_bytes, checksum

    def _meant_by(self, headers: bytes) -> Message:
        known = self._known.get(headers)
        if known is None:
            known = _without_payload(headers)
            if len(self._known) < _KNOWN_MAX:
                self._known[headers] = known
        return known


def _without_payload(headers: bytes) -> Message:
    texts = _texts(headers)
    kind = texts.get(":message-type", "event")
    return Message(kind, texts.get(_NAMES.get(kind, ""), ""), b"", texts.get(":error-message", ""))


def _texts(headers: bytes) -> dict[str, str]:
    """The headers that are texts, by name. Raises AttemptFailed."""
    texts: dict[str, str] = {}
    at, size = 0, len(headers)
    try:
        while at < size:
            name_end = at + 1 + headers[at]
            name = headers[at + 1 : name_end].decode()
            kind = headers[name_end]
            at = name_end + 1
            if kind in (_BYTES, _STRING):
                (length,) = _LENGTH.unpack_from(headers, at)
                at += _LENGTH.size
                if kind == _STRING:
                    texts[name] = headers[at : at + length].decode()
                at += length
            else:
                at += _VALUE_BYTES[kind]
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise _broken(f"headers of a message that make no sense: {type(error).__name__}") from None
    if at != size:
        raise _broken("headers of a message that are cut")
    return texts


def _broken(reason: str) -> AttemptFailed:
    return AttemptFailed("protocol_error", reason)
