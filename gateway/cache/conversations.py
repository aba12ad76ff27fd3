"""Conversations that callers of Responses go on with by the id of the last answer.

Invariants:
- A turn is found by its tenant and its id alone; the tenant is part of the key, so nobody goes on with another's.
- A conversation lives until nobody went on with it for its time; whoever goes on keeps all of its turns.
- What is kept is bounded in turns and bytes, and losing it costs a caller nothing but a clear refusal.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from gateway.cache.entry import Damaged, pack, unpack
from gateway.cache.scripts import CacheScripts
from gateway.cache.store import LaneLike
from gateway.clock import wall
from gateway.errors import InvalidRequest, RedisFailure, StoreUnavailable
from gateway.model import Frozen
from gateway.redis import names

FIELD: Final = "previous_response_id"

_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")
_TOO_MANY = 1
_log = logging.getLogger("gateway.cache")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class ConversationBounds(Frozen, frozen=True):
    """See the settings of the same names."""

    ttl_s: float = 86_400.0
    max_turns: int = 256
    max_bytes: int = 4_194_304  # of all turns of a conversation, before they are compressed


class Conversations:
    """Turns in Redis. ``open_lane`` gives the lane, None without a Redis: then nothing is kept and nothing found."""

    def __init__(
        self, open_lane: Callable[[], LaneLike | None], scripts: CacheScripts, bounds: ConversationBounds
    ) -> None:
        self._open_lane = open_lane
        self._scripts = scripts
        self.bounds = bounds
        self._is_failing = False

    async def items(self, tenant: str, response_id: str) -> list[msgspec.Raw]:
        """All items of the conversation that ends with this answer.

        Raises InvalidRequest where it is not known or has become too large, StoreUnavailable.
        """
        lane = self._open_lane()
        if lane is None or _ID.fullmatch(response_id) is None:
            raise _not_found()
        bounds = self.bounds
        args = (names.conversation(tenant, ""), int(bounds.ttl_s * 1000), bounds.max_turns, bounds.max_bytes)
        try:
            turns = await lane.run(self._scripts.recall, (names.conversation(tenant, response_id),), args)
        except RedisFailure as failure:
            raise StoreUnavailable(
                "Earlier answers cannot be looked up now.", detail=str(failure), retry_after_s=1
            ) from None
        if isinstance(turns, int):
            raise self._too_long("turns" if turns == _TOO_MANY else "bytes")
        if not turns:
            raise _not_found()
        return self._unpacked(turns)

    def _unpacked(self, turns: Sequence[bytes]) -> list[msgspec.Raw]:
        items: list[msgspec.Raw] = []
        left = self.bounds.max_bytes
        try:
            for turn in turns:
                body, _ = unpack(turn, self.bounds.max_bytes)
                left -= len(body)
                if left < 0:
                    raise self._too_long("bytes")
                items += _decode(body)
        except (Damaged, msgspec.DecodeError):
            raise _not_found() from None
        return items

    def _too_long(self, what: Literal["turns", "bytes"]) -> InvalidRequest:
        most = self.bounds.max_turns if what == "turns" else self.bounds.max_bytes
        return InvalidRequest(
            f"The conversation has more than {most} {what}.", code="conversation_too_long", param=FIELD
        )

    def keep(self, tenant: str, response_id: str, previous: str | None, items: Sequence[object]) -> None:
        """Keep a turn: what was asked and answered. Never waits; a failure is logged, once until over."""
        lane = self._open_lane()
        if lane is None or _ID.fullmatch(response_id) is None:
            return
        body = _encode(items)
        if len(body) > self.bounds.max_bytes:
            return
        args = (previous or "", pack(body, wall()), int(self.bounds.ttl_s * 1000))
        kept = lane.run(self._scripts.record, (names.conversation(tenant, response_id),), args)
        kept.add_done_callback(lambda future: self._note(None if future.cancelled() else future.exception()))

    def _note(self, failure: BaseException | None) -> None:
        if failure is not None and not self._is_failing:
            _log.warning("answers cannot be kept for those who go on from them: %s", failure)
        self._is_failing = failure is not None


def _not_found() -> InvalidRequest:
    return InvalidRequest(
        "No answer of this id is kept: it is not known here, or too long ago.",
        code="previous_response_not_found",
        param=FIELD,
    )
