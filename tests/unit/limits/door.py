"""A limiter behind a fake lane, for the tests of admission."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.limits import Limiter, LimitOptions
from gateway.limits.lease import AdmittedLease
from gateway.model import Backend, ChatRequest, Limit, Plan
from tests.unit.limits.fake_lane import SCRIPTS, FakeLane
from tests.unit.limits.values import CHAT, Counts, a_limit, principal

REQUEST = ChatRequest(model="chat", fields={"messages": b'[{"role":"user","content":"hi"}]'})
PLAN = Plan(attempts=(Backend(name="main", provider="echo", origin=None, max_output_tokens=50),))
TEN = a_limit("requests", "day", 10)


class Door:
    """A limiter on a fake lane, for callers with some limits."""

    def __init__(self, *limits: Limit, lane: bool = True) -> None:
        self.lane = FakeLane()
        self.counts = Counts()
        self.limiter = Limiter(self.lane if lane else None, SCRIPTS if lane else None, LimitOptions(), self.counts)
        self.caller = principal(*(limits or (TEN,)))

    async def admit(self, plan: Plan = PLAN, request: ChatRequest = REQUEST) -> AdmittedLease:
        """One call."""
        bound = self.limiter.bind(self.caller, CHAT)
        assert bound is not None
        return await self.limiter.admit(bound, plan, request)

    async def refused(self) -> GatewayError:
        """The error of a call that must not be admitted."""
        with pytest.raises(GatewayError) as caught:
            await self.admit()
        return caught.value


def run(main: Coroutine[Any, Any, None]) -> None:
    """To its end, with a bound."""
    asyncio.run(asyncio.wait_for(main, 10))
