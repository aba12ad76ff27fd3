"""The vector of a text by a backend of the OpenAI dialect: one call, one attempt, bounded in time and size.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import asyncio

import msgspec

from gateway.dialects.openai.request import request_head
from gateway.errors import AttemptFailed, Outcome
from gateway.model import Backend
from gateway.telemetry import Metrics
from gateway.upstream.client import UpstreamClient

PATH = "/embeddings"
_BODY_BYTES_MAX = 1_048_576


class _Embedding(msgspec.Struct):
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Embedding]


_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class Embedder:
    """Asks for embeddings; counts its attempts at the backends."""

    def __init__(self, client: UpstreamClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    async def embed(self, backend: Backend, text: str, timeout_s: float) -> list[float]:
        """The vector of a text. Raises AttemptFailed."""
        outcome: Outcome = "cancelled"
        try:
            async with asyncio.timeout(timeout_s):
                vector = await self._ask(backend, _encode({"model": backend.model or backend.name, "input": text}))
            outcome = "ok"
            return vector
        except TimeoutError:
            outcome = "total_timeout"
            raise AttemptFailed(outcome, f"no embedding in {timeout_s:g} s") from None
        except AttemptFailed as failure:
            outcome = failure.outcome
            raise
        finally:
            self._metrics.attempt(backend.name, outcome)

    async def _ask(self, backend: Backend, body: bytes) -> list[float]:
        assert backend.origin is not None, "a backend in process has no embeddings"
        head = b"%bcontent-length: %d\r\n\r\n" % (request_head(backend, PATH), len(body))
        source = await self._client.exchange(backend.origin, (head, body), backend.timeouts)
        try:
            if source.status != 200:
                outcome: Outcome = "server_error" if source.status >= 500 else "refused"
                raise AttemptFailed(outcome, f"status {source.status}")
            content = bytearray()
            while data := await source.read():
                source.begun()
                content += data
                if len(content) > _BODY_BYTES_MAX:
                    raise AttemptFailed("protocol_error", f"a body of more than {_BODY_BYTES_MAX} bytes")
            (only,) = _decode(bytes(content)).data
            return only.embedding
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise AttemptFailed("protocol_error", f"no embedding: {error}") from None
        finally:
            source.close()
