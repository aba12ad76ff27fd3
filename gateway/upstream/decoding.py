"""Content codings of backend answers: gzip and deflate (RFC 9110, 8.4.1), decoded in bounded steps.

The gateway asks for identity; some servers compress all the same. One compressed chunk may expand a thousandfold, so
output is handed out in steps of at most ``_STEP`` bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from gateway.errors import AttemptFailed

_STEP = 65_536
_TELLING_BYTES = 2  # that tell gzip, zlib and raw deflate apart


class Decoder:
    """Decodes one body; ``coding`` is gzip, x-gzip or deflate. Raises AttemptFailed on anything else."""

    def __init__(self, coding: str) -> None:
        if coding not in {"gzip", "x-gzip", "deflate"}:
            raise AttemptFailed("protocol_error", f"unsupported content-encoding {coding[:32]!r}")
        self._deflate = coding == "deflate"
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._started = False
        self._first = b""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """The decoded form of the next piece, step by step. Raises AttemptFailed if it is not what it says."""
        if not self._started:
            data = self._first + data
            if len(data) < _TELLING_BYTES:
                self._first = data
                return
        more = True
        while more:
            try:
                step = self._decompress(data)
            except zlib.error as error:
                raise AttemptFailed("protocol_error", f"bad compressed body: {error}") from None
            data = self._stream.unconsumed_tail
            if self._stream.eof and self._stream.unused_data:
                raise AttemptFailed("protocol_error", "bytes after the end of the compressed body")
            more = len(step) == _STEP or bool(data)  # a full step may leave output behind that needs no more input
            if step:
                yield step

    def _decompress(self, data: bytes) -> bytes:
        """``deflate`` means zlib, but some servers send it raw; the first bytes tell (RFC 9110, 8.4.1.2)."""
        try:
            step = self._stream.decompress(data, _STEP)
        except zlib.error:
            if self._started or not self._deflate:
                raise
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
            step = self._stream.decompress(data, _STEP)
        self._started = True
        return step

    @property
    def finished(self) -> bool:
        """True if the compressed body came to its own end."""
        return self._stream.eof
