"""The keys of the role that this process has on AWS: asked for when first needed, and anew before they end.

Invariants:
- However many calls wait, one task asks; a call never waits longer than the time limit, and not at all while the keys
  that are known are good.
- Where there are none to be had, it is asked again once a second at most.
- Neither keys nor tokens are in any text of an error, in a log or in a repr.

The order of places is that of AWS's own libraries: the environment, a web identity (IRSA), the agent of the container
(EKS Pod Identity, ECS). The metadata service of instances is not asked: a pod that may reach it can be any pod's role.
Source: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.clock import wall
from gateway.errors import AttemptFailed
from gateway.model.credentials import AwsKeys

AHEAD_S: Final = 600.0
"""How long before their end keys are asked for anew, while they stay in use."""

LEAST_S: Final = 15.0
"""How long keys must be good for to sign with them: a request is under way, and clocks differ."""

RETRY_S: Final = 1.0
RETRY_AHEAD_S: Final = 30.0
"""How long it is waited before it is asked again: without keys, and with keys that are good for a while."""


class KeysUnavailable(Exception):
    """There are no keys; the text is for operators and quotes nothing that was received."""


class FetchKeys(Protocol):
    """Where keys come from; returns those of now within its own time limit. Raises KeysUnavailable."""

    def __call__(self) -> Awaitable[AwsKeys]:
        """Ask."""


class RoleKeys:
    """The keys of one role; calls of it give them."""

    def __init__(self, fetch: FetchKeys, clock: Callable[[], float] = wall) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: AwsKeys | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure = ""
        self._retry_at = 0.0

    async def __call__(self) -> AwsKeys:
        """Keys that are good for a while. Raises AttemptFailed (unauthorized)."""
        if self._good_for(AHEAD_S) is None:
            task = self._ask()
            if self._good_for(LEAST_S) is None and task is not None:
                await asyncio.wait((task,))  # it goes on if this call is cancelled: others may wait for it
        keys = self._good_for(LEAST_S)
        if keys is None:
            raise AttemptFailed("unauthorized", f"no credentials of AWS: {self._failure}")
        return keys

    async def close(self) -> None:
        """Give up what is being asked."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _good_for(self, seconds: float) -> AwsKeys | None:
        keys = self._keys
        if keys is None or keys.expires_at is None:
            return keys
        return keys if self._clock() + seconds < keys.expires_at else None

    def _ask(self) -> asyncio.Task[None] | None:
        """The task that asks; None where it is too early to ask again."""
        if self._task is None and self._clock() >= self._retry_at:
            self._task = asyncio.get_running_loop().create_task(self._renew(), name="keys of AWS")
        return self._task

    async def _renew(self) -> None:
        try:
            self._keys = await self._fetch()
        except KeysUnavailable as failure:
            self._failure = str(failure)
        finally:
            is_urgent = self._good_for(LEAST_S) is None
            self._retry_at = self._clock() + (RETRY_S if is_urgent else RETRY_AHEAD_S)
            self._task = None
