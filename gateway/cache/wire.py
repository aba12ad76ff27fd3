"""What is said of a call's answer from one process to others: pieces, each a letter and its content. Pure.

Whoever reads a piece that is no piece of this version treats the call as lost.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.cache.flight import Flight, Head, Refusal
from gateway.errors import AttemptFailed, Outcome

_BEGIN, _DATA, _END, _REFUSED, _BROKEN, _LOST = b"b", b"d", b"e", b"r", b"x", b"l"
Last = Literal["end", "lost"]
_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_refusal = msgspec.msgpack.Decoder(Refusal).decode
_decode_break = msgspec.msgpack.Decoder(tuple[Outcome, str]).decode

END = _END
LOST = _LOST


def begin(head: Head) -> bytes:
    """An answer begins."""
    return _BEGIN + _encode(head)


def data(content: bytes) -> bytes:
    """More of a stream."""
    return _DATA + content


def refused(refusal: Refusal) -> bytes:
    """No backend answered."""
    return _REFUSED + _encode(refusal)


def broken(failure: AttemptFailed) -> bytes:
    """The stream broke off."""
    return _BROKEN + _encode((failure.outcome, failure.detail))


def tell(flight: Flight, piece: bytes) -> None:
    """Say a piece that was read to the callers here. Raises ValueError for what is no piece."""
    letter, content = piece[:1], piece[1:]
    try:
        if letter == _DATA:
            flight.push(content)
        elif letter == _BEGIN:
            flight.begin(_decode_head(content))
        elif letter == _END:
            flight.finish()
        elif letter == _REFUSED:
            flight.refuse(_decode_refusal(content))
        elif letter == _BROKEN:
            outcome, detail = _decode_break(content)
            flight.break_off(AttemptFailed(outcome, detail))
        elif letter == _LOST:
            flight.lose("the call that was shared was given up")
        else:
            raise ValueError("not a piece of an answer")
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
