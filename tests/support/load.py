"""Callers of several tenants at once, without a pause, before, during and after whatever a test does meanwhile.

Each prompt has a mark of its own and the upstream says it again, so that an answer shows whose it is; each tenant has
limits of its own amount, so that the levels in its headers do too.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.client import Response
from tests.support.documents import Document, api_key, new_key, tenant
from tests.support.gateway import GatewayProcess
from tests.support.limited import PATH, body, code, limit
from tests.support.scripts import Chat, Received, Script
from tests.support.waiting import eventually

MARK = re.compile(rb"mark-[a-z]+-[0-9]+-[0-9]+-")
PAUSE_S = 0.02
"""Between two calls of one caller: the machine has other things to do."""


def say_again(request: Received) -> Script:
    """A backend that answers with the prompt."""
    return Chat(pieces=(request.json()["messages"][0]["content"],))(request)


@dataclass(frozen=True)
class Answer:
    """An answer and when its call began and ended (time.monotonic)."""

    began: float
    ended: float
    response: Response

    @property
    def status(self) -> int:
        """Its status."""
        return self.response.status

    @property
    def is_degraded(self) -> bool:
        """Whether it was decided without Redis."""
        return self.response.header("x-llm-gateway-degraded") == "limits"


class Party:
    """A tenant whose limits have one ``onRedisLoss`` (None: it has no limits), and what was answered to it."""

    def __init__(self, name: str, policy: str | None, amount: int) -> None:
        self.name = name
        self.policy = policy
        self.amount = amount
        self.key = new_key()
        self.answers: list[Answer] = []

    def documents(self) -> list[Document]:
        """Its documents."""
        limits = [
            limit("requests", self.amount, "day", onRedisLoss=self.policy),
            limit("tokens", 1_000_000_000, "day", onRedisLoss=self.policy),
            limit("concurrency", 1000, onRedisLoss=self.policy),
        ]
        return [
            tenant(self.name, limits=limits if self.policy is not None else []),
            api_key(f"{self.name}-key", self.key, self.name),
        ]

    def check(self, answer: Answer, mark: bytes) -> None:
        """An answer must be the caller's own, and as the policy says."""
        response = answer.response
        if response.status == 200:
            assert set(MARK.findall(response.body)) == {mark}, (mark, response)
            assert not answer.is_degraded or self.policy in {"open", "local"}, response
        else:
            assert (self.policy, response.status, code(response)) == ("closed", 503, "limits_unavailable"), response
            assert int(response.header("retry-after") or "") >= 1, response
            assert answer.is_degraded, response
        if response.status == 200 and not answer.is_degraded and self.policy is not None:
            assert response.header("x-ratelimit-limit-requests") == str(self.amount), response

    def since(self, began: float, ended: float = float("inf")) -> list[Answer]:
        """The answers to calls that began after ``began`` and ended before ``ended``."""
        return [each for each in list(self.answers) if each.began > began and each.ended < ended]

    @property
    def served(self) -> int:
        """How many of its calls were answered with 200."""
        return sum(each.status == 200 for each in list(self.answers))


class Load:
    """``callers`` of each party; a context manager that ends with the calls that run then, and raises what failed."""

    def __init__(self, gateways: Sequence[GatewayProcess], parties: Sequence[Party], callers: int) -> None:
        self.gateways = gateways
        self.parties = parties
        self.callers = callers
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(party, number), daemon=True)
            for number, party in enumerate(itertools.chain(*([party] * callers for party in parties)))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every caller finish. Raises what went wrong with any of them."""
        self._over.set()
        for thread in self._threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self._threads)
        self._raise()

    def ask(self, party: Party, turn: int = 0) -> Answer:
        """One more call of a party."""
        with self.gateways[0].client() as client:
            began = time.monotonic()
            mark = f"mark-{party.name}-999-{turn}-"
            response = client.request(PATH, body(text=mark), key=party.key, headers={"connection": "close"})
            answer = Answer(began, time.monotonic(), response)
        party.check(answer, mark.encode())
        party.answers.append(answer)
        return answer

    def wait_for(self, count: int, *, since: float = 0.0, degraded: bool | None = None, timeout_s: float = 15) -> None:
        """Wait until every party has so many more answers, every one with limits such ones."""

        def has_enough(party: Party) -> bool:
            found = party.since(since)
            if party.policy is not None and degraded is not None:
                found = [each for each in found if each.is_degraded is degraded]
            return len(found) >= count

        def all_have() -> bool:
            if self._failures:
                self._over.set()
            return self._over.is_set() or all(map(has_enough, self.parties))

        eventually(all_have, timeout_s, every_s=0.02)
        self._raise()

    def _raise(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _run(self, party: Party, number: int) -> None:
        try:
            with self.gateways[number % len(self.gateways)].client(timeout_s=15) as client:
                for turn in itertools.count():
                    if self._over.is_set():
                        return
                    mark = f"mark-{party.name}-{number}-{turn}-"
                    fields = body(text=mark, stream=turn % 4 == 3)
                    began = time.monotonic()
                    response = client.request(PATH, fields, key=party.key)
                    answer = Answer(began, time.monotonic(), response)
                    party.check(answer, mark.encode())
                    party.answers.append(answer)
                    time.sleep(PAUSE_S)
        except BaseException as failure:  # noqa: BLE001  # of a thread: the test raises it
            self._failures.append(failure)


def parties() -> tuple[Party, ...]:
    """One for each policy, and one without limits."""
    return (
        Party("free", None, 0),
        Party("open", "open", 1_000_001),
        Party("closed", "closed", 1_000_002),
        Party("local", "local", 1_000_003),
    )
