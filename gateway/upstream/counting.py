"""How many tokens the input of a call has, by a backend that counts them itself: one call, one attempt, bounded.

Only Anthropic's do. A backend that does not answer, or not in time, leaves the caller with an estimate.

Source: https://platform.claude.com/docs/en/api/messages-count-tokens
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.dialects.anthropic.refusals import check_refusal, error_of
from gateway.dialects.ask import beyond_chat
from gateway.dialects.openai.request import request_head
from gateway.dialects.providers import TRANSLATES
from gateway.errors import AttemptFailed, InvalidRequest, Outcome

if TYPE_CHECKING:
    from gateway.dialects.contract import Outgoing
    from gateway.model import Backend, ChatRequest
    from gateway.telemetry import Metrics
    from gateway.upstream.client import UpstreamClient

COUNTED_BY: Final = frozenset({"anthropic"})
"""Providers whose backends count."""

TIMEOUT_S: Final = 10.0
"""For a count; a backend's own total time holds, too."""

_BODY_BYTES_MAX: Final = 65_536
_COUNTED: Final = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control",
     "context_management", "mcp_servers"}
)  # fmt: skip
"""The fields that such a request may have, of those of a call."""

_PASSED_THROUGH: Final = frozenset({400, 413, 422})


class _Answer(msgspec.Struct):
    input_tokens: int


_decode = msgspec.json.Decoder(_Answer).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class InputCounter:
    """Asks for counts; counts its attempts at the backends."""

    def __init__(self, client: UpstreamClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    async def count(self, backend: Backend, request: ChatRequest) -> int | None:
        """The tokens of the request's input; None where the backend cannot say. Raises InvalidRequest, as calls do."""
        if backend.provider not in COUNTED_BY:
            beyond_chat(request)
            return None
        translation = TRANSLATES[backend.provider](request, backend)
        if translation.dialect == "chat":
            beyond_chat(request)
        outgoing = translation.outgoing
        outcome: Outcome = "cancelled"
        try:
            async with asyncio.timeout(min(TIMEOUT_S, backend.timeouts.total_s)):
                counted = await self._ask(backend, outgoing)
            outcome = "ok"
            return counted
        except TimeoutError:
            outcome = "total_timeout"
            return None
        except InvalidRequest:
            outcome = "refused"
            raise
        except AttemptFailed as failure:
            outcome = failure.outcome
            return None
        finally:
            self._metrics.attempt(backend.name, outcome)

    async def _ask(self, backend: Backend, outgoing: Outgoing) -> int:
        assert backend.origin is not None, "a backend in process counts nothing"
        members = _decode_members(outgoing.body)
        body = _encode({name: raw for name, raw in members.items() if name in _COUNTED})
        start = request_head(backend, f"{outgoing.path}/count_tokens") + outgoing.lines
        head = b"%bcontent-length: %d\r\n\r\n" % (start, len(body))
        source = await self._client.exchange(backend.origin, (head, body), backend.timeouts)
        try:
            content = bytearray()
            while data := await source.read():
                source.begun()
                content += data
                if len(content) > _BODY_BYTES_MAX:
                    raise AttemptFailed("protocol_error", f"a body of more than {_BODY_BYTES_MAX} bytes")
            if source.status in _PASSED_THROUGH:
                raise error_of(source.status, check_refusal(source.status, bytes(content)))
            if source.status != 200:
                outcome: Outcome = "server_error" if source.status >= 500 else "refused"
                raise AttemptFailed(outcome, f"status {source.status}")
            return _decode(bytes(content)).input_tokens
        except (msgspec.DecodeError, RecursionError) as error:
            raise AttemptFailed("protocol_error", f"no count: {error}") from None
        finally:
            source.close()
