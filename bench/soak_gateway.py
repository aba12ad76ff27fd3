"""Gateways of the soak, whose log is read as fast as it comes and forgotten but for its end."""

from __future__ import annotations

import os
from typing import IO

from tests.support.gateway import GatewayProcess

_TAIL_BYTES = 20_000


class QuietGateway(GatewayProcess):
    """A gateway that may log a million lines: nothing of them is parsed, and only the last ones are kept."""

    _tail = b""

    def output(self) -> str:
        """The end of what it wrote."""
        return self._tail.decode(errors="replace")

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while data := os.read(stream.fileno(), 1 << 18):
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
