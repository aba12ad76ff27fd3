"""Access tokens that are asked for: kept while they are good, renewed before they end, one asked for at a time.

Invariants:
- Whatever callers do, a credential's endpoint is asked by one task at a time, and after a failure not before RETRY_S.
- A token that is good stays in use while a new one is being asked for, and while that fails.
- Nobody waits for a token but those for whom there is none that is good.
- No token is in a log or in the text of an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from gateway.clock import monotonic
from gateway.errors import AttemptFailed
from gateway.model import Frozen

_log = logging.getLogger("gateway.upstream")

RETRY_S: Final = 1.0
"""How long after a failure a token is asked for again."""

REFUSED_AGAIN_S: Final = 10.0
"""How often a token is asked for because the last one was refused: an account without rights gets none by that."""

END_MARGIN_S: Final = 10.0
"""A token is good until this long before its end: a request is on its way for a while."""

_C = TypeVar("_C", bound=Hashable)


class Token(Frozen, frozen=True):
    """A header line with CRLF, and how many seconds after it was asked for it ends."""

    line: bytes
    lifetime_s: float

    def __repr__(self) -> str:
        """Nothing of the line."""
        return f"Token({self.lifetime_s:g} s)"


class TokenUnavailable(Exception):
    """There is no token to be had; the text is for operators and quotes nothing that was received."""


Fetch = Callable[[], Awaitable[Token]]
"""Asks for a token. Raises TokenUnavailable."""


class KeptToken:
    """Signs with the token of one credential; see ``Signer``. ``name`` is what logs call the credential."""

    def __init__(self, name: str, fetch: Fetch, renew_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._fetch = fetch
        self._renew_s = renew_s
        self._clock = clock
        self._line = b""
        self._renew_at = self._ends_at = self._retry_at = self._refused_at = float("-inf")
        self._is_refused = False
        self._failure = ""
        self._task: asyncio.Task[None] | None = None

    async def lines(self, target: str, body: bytes) -> bytes:  # noqa: ARG002  # the same for every request
        """See Signer."""
        now = self._clock()
        if now < self._renew_at:
            return self._line
        task = self._renew(now)
        if now < self._ends_at and not self._is_refused:
            return self._line
        if task is not None:
            await asyncio.wait((task,))  # it goes on if this caller leaves: others may wait for it
        if self._clock() < self._ends_at:
            return self._line
        raise AttemptFailed("unauthorized", f"no token for {self._name}: {self._failure}")

    def refused(self, lines: bytes) -> bool:
        """See Signer."""
        if lines != self._line:
            return True
        now = self._clock()
        if self._is_refused or now < self._refused_at + REFUSED_AGAIN_S or now < self._retry_at:
            return self._task is not None  # which may bring a better one
        self._is_refused = True
        self._refused_at = now
        self._renew_at = float("-inf")
        return True

    async def close(self) -> None:
        """Give up what is being asked for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _renew(self, now: float) -> asyncio.Task[None] | None:
        """The task that asks, begun if it may be; None where it has failed a moment ago."""
        if self._task is None and now >= self._retry_at:
            self._task = asyncio.get_running_loop().create_task(self._ask(now), name="fetch token")
        return self._task

    async def _ask(self, now: float) -> None:
        try:
            token = await self._fetch()
        except TokenUnavailable as error:
            self._note(str(error))
        except Exception:  # noqa: BLE001  # whatever went wrong, what is known goes on and the next call tries again
            _log.exception("no token for %s", self._name)
            self._note("an error of the gateway's own")
        else:
            self._line, self._is_refused = token.line, False
            self._ends_at = now + max(token.lifetime_s - END_MARGIN_S, token.lifetime_s / 2)
            self._renew_at = now + max(token.lifetime_s - self._renew_s, token.lifetime_s / 2)
            self._note("")
        finally:
            self._task = None

    def _note(self, failure: str) -> None:
        """One line for each change between an endpoint that gives tokens and one that does not."""
        if failure:
            self._retry_at = self._clock() + RETRY_S
        if failure and not self._failure:
            meanwhile = "the last one stays in use" if self._clock() < self._ends_at else "its backends fail until then"
            _log.warning("no token for %s: %s; %s", self._name, failure, meanwhile)
        elif self._failure and not failure:
            _log.warning("tokens for %s are given again", self._name)
        self._failure = failure


class KeptTokens(Generic[_C]):
    """Those of every credential of one kind that backends have now: backends with the same one share its token."""

    def __init__(self, make: Callable[[_C], KeptToken]) -> None:
        self._make = make
        self._kept: WeakValueDictionary[Hashable, KeptToken] = WeakValueDictionary()

    def of(self, credential: _C) -> KeptToken:
        """That of this one; forgotten as soon as nobody signs with it."""
        kept = self._kept.get(credential)
        if kept is None:
            kept = self._kept[credential] = self._make(credential)
        return kept

    async def close(self) -> None:
        """Give up what is being asked for."""
        for kept in list(self._kept.values()):
            await kept.close()
