"""The soak of reloads: the registry changes a hundred times under 200 requests a second.

Each load marks everything that it decides of a request: the name of the backend's model, a header of the backend, a
parameter and the prompt of the scenario. The model server answers with the marks that it saw, some of them while a
later load is serving already. No request may fail, none may carry marks of two loads, each request's log line must name
one generation for one mark, and what the process itself holds must not grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

from bench import process
from bench.machine import upstream
from bench.soak_askers import Answered, Asked, Pace, ask_on
from bench.soak_variants import MARK_HEADER
from tests.support.documents import Document, api_key, backend, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess

LIVE_S_MAX = 10.0
GROWTH_BYTES_MAX = 8_000_000
_PROBLEMS_KEPT = 20
_WARM = 0.3  # of the reloads: until then memory may find its level


@dataclass(frozen=True)
class ReloadPlan:
    """How many reloads under how many requests a second, by so many callers."""

    reloads: int = 100
    per_s: float = 200.0
    callers: int = 60


@dataclass
class ReloadReport:
    """What was seen; memory is that of the process tree's own pages, in bytes."""

    requests: int = 0
    seconds: float = 0.0
    generations: int = 0
    longest_live_s: float = 0.0
    warm_bytes: int = 0
    end_bytes: int = 0
    marks: dict[str, str] = field(default_factory=dict)  # by request id
    problems: list[str] = field(default_factory=list)


def run(plan: ReloadPlan, say: Callable[[str], None]) -> ReloadReport:
    """The whole soak with its own upstream and gateway."""
    key = new_key()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(upstream(os.sched_getaffinity(0), "bench.soak_variants"))
        env = {"LLM_GATEWAY_REGISTRY_POLL_S": "0.1"}
        gateway = stack.enter_context(GatewayProcess(registry(0, port, key), key=key, env=env))
        say(f"{plan.reloads} reloads under {plan.per_s:g} requests a second")
        report = uvloop.run(_Soak(plan, gateway, port, key).run())
    _judge_lines(gateway, report)  # once all of its output has been read
    return report


def judge_report(report: ReloadReport, say: Callable[[str], None]) -> list[str]:
    """Print the figures; returns what did not hold, memory included."""
    rate = report.requests / report.seconds if report.seconds else 0.0
    say(f"{report.requests} requests, {rate:.0f} a second, {report.generations} generations answered")
    say(f"a change was live after {report.longest_live_s:.2f} s at most")
    say(f"memory: {report.warm_bytes / 1e6:.1f} MB when warm, {report.end_bytes / 1e6:.1f} MB at the end")
    problems = list(report.problems)
    if report.end_bytes > report.warm_bytes + GROWTH_BYTES_MAX:
        problems.append("memory grows with every reload")
    return problems


def registry(mark: int, port: int, key: str) -> list[Document]:
    """A registry in which everything has this mark."""
    url = f"http://127.0.0.1:{port}/v1"
    return [
        backend("main", url, model=f"marks:{mark}", headers={MARK_HEADER: str(mark)}),
        document("Prompt", f"mark.v{mark}", {"template": f"mark {mark}"}),
        scenario("chat", "main", prompt=f"mark.v{mark}", parameters={"overrides": {"seed": mark}}),
        tenant("acme"),
        api_key("acme-key", key),
    ]


class _Soak:
    def __init__(self, plan: ReloadPlan, gateway: GatewayProcess, port: int, key: str) -> None:
        self._plan, self._gateway, self._port, self._key = plan, gateway, port, key
        self._asked = Asked()
        self._report = ReloadReport()
        self._read = 0

    async def run(self) -> ReloadReport:
        """Load, reload, stop."""
        plan, report, numbers = self._plan, self._report, itertools.count()
        pace = Pace(self._gateway.port, self._key, "chat", plan.callers / plan.per_s)
        began = time.monotonic()
        tasks = [
            asyncio.create_task(ask_on(pace, self._asked, lambda: f"r{next(numbers)}")) for _ in range(plan.callers)
        ]
        for mark in range(1, plan.reloads + 1):
            await self._reload(mark)
            if mark == max(int(plan.reloads * _WARM), 1):
                report.warm_bytes = process.own_bytes(self._gateway.process.pid)
        report.end_bytes = process.own_bytes(self._gateway.process.pid)
        self._asked.stopping = True
        await asyncio.gather(*tasks)
        report.seconds, report.requests = time.monotonic() - began, len(self._asked.answers)
        report.problems += self._asked.errors
        for each in self._asked.answers:
            found = _marks(each)
            if len(set(found)) != 1:
                report.problems.append(f"{each.id}: answered {each.status}, marks: {found}")
            else:
                report.marks[each.id] = found[0]
        report.generations = len(set(report.marks.values()))
        report.problems = report.problems[:_PROBLEMS_KEPT]
        return report

    async def _reload(self, mark: int) -> None:
        """Write the next registry and wait until an answer has its mark."""
        began = time.monotonic()
        self._gateway.write_registry(registry(mark, self._port, self._key))
        while not self._seen(mark):
            if time.monotonic() - began > LIVE_S_MAX:
                self._report.problems.append(f"the change {mark} is not live after {LIVE_S_MAX:g} s")
                return
            await asyncio.sleep(0.01)
        self._report.longest_live_s = max(self._report.longest_live_s, time.monotonic() - began)

    def _seen(self, mark: int) -> bool:
        fresh, self._read = self._asked.answers[self._read :], len(self._asked.answers)
        return any(str(mark) in _marks(each) for each in fresh)


def _marks(answered: Answered) -> list[str]:
    """The marks that the model server saw; none where the answer is no answer."""
    if answered.status != 200:
        return []
    return str(json.loads(answered.content)["choices"][0]["message"]["content"]).split()


def _judge_lines(gateway: GatewayProcess, report: ReloadReport) -> None:
    """Each request has a line, and the lines of one mark name one generation."""
    generations: dict[str, set[int]] = {}
    lines = {line["request_id"]: line["generation"] for line in gateway.logs() if line.get("event") == "request"}
    for request_id, mark in report.marks.items():
        generations.setdefault(mark, set()).add(lines.get(request_id, 0))
    wrong = {mark: found for mark, found in generations.items() if len(found) != 1 or 0 in found}
    report.problems += [
        f"mark {mark}: generations {sorted(found)}" for mark, found in list(wrong.items())[:_PROBLEMS_KEPT]
    ]
    if len({min(found) for found in generations.values()}) != len(generations):
        report.problems.append("one generation has several marks")
