"""The chunked transfer coding, strictly, for clients that check what they read."""

from __future__ import annotations


class Chunked:
    """Takes a chunked body apart as it arrives (RFC 9112, section 7.1); no trailers, no extensions.

    ``feed`` gives the content in what was fed; ``ended`` is set by the last chunk. Raises ValueError on anything that
    is not chunked coding, bytes after the end included.
    """

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        self._left = 0  # content bytes that the current chunk still has
        self._mark = b""  # what must come next, literally: the line end of a chunk, or of the body

    def feed(self, data: bytes) -> bytes:
        """The content in ``data``."""
        data, at, content = self._rest + data, 0, []
        while at < len(data):
            if self._left:
                content.append(data[at : at + self._left])
                at += len(content[-1])
                self._left -= len(content[-1])
                continue
            step = self._take_mark(data, at) if self._mark else self._take_size(data, at)
            if not step:
                break
            at += step
        self._rest = data[at:]
        return b"".join(content)

    def _take_mark(self, data: bytes, at: int) -> int:
        seen = data[at : at + 2]
        if not self._mark.startswith(seen):
            raise ValueError(f"a chunk is followed by {data[at : at + 80]!r}")
        if len(seen) < 2:
            return 0
        self._mark = b""
        return 2

    def _take_size(self, data: bytes, at: int) -> int:
        if self.ended:
            raise ValueError(f"bytes after the last chunk: {data[at : at + 80]!r}")
        end = data.find(b"\r\n", at)
        if end < 0:
            return 0
        self._left, self._mark = int(data[at:end], 16), b"\r\n"
        self.ended = not self._left
        return end + 2 - at

    @property
    def complete(self) -> bool:
        """Whether the whole body, its last line end included, was fed."""
        return self.ended and not self._mark
