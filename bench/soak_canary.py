"""The soak of canaries: two gateways on one Valkey, twenty healthy canaries, one that fails a fifth, one that is slow.

All of them are scenarios of one registry under load at the same time, each with half of its requests at the canary.
From what the callers saw, in the order in which it ended, follows when there was evidence enough: the first moment at
which the very judgement of the gateway would withdraw the canary. No call may have gone to it that was begun more than
5 seconds after that, on either gateway, and no healthy canary may have been withdrawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from bench.machine import upstream
from bench.soak_askers import Answered, Asked, Pace, ask_on
from bench.soak_gateway import QuietGateway
from gateway.model import Abort
from gateway.rollout.judge import judge
from tests.support.admin import ADMIN_ENV, get
from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.valkey import Valkey

FAILING, SLOW = "failing", "slow"
MIN_REQUESTS = 50
ABORT = {"errorRatio": 0.05, "firstTokenP95": "400ms", "minRequests": MIN_REQUESTS}
BOUNDS = Abort(error_ratio=0.05, first_token_p95_s=0.4, min_requests=MIN_REQUESTS)
WITHIN_S = 5.0
_READY_S_MAX = 20.0


@dataclass(frozen=True)
class CanaryPlan:
    """How many canaries, and how long; a healthy one has one caller at each gateway, who asks every ``every_s``."""

    healthy: int = 20
    bad_callers: int = 4
    gateways: int = 2
    seconds: float = 45.0
    every_s: float = 0.2


@dataclass
class CanaryReport:
    """``took_s``: from the evidence to the last call that was sent to it, by scenario; ``calls``: of each canary."""

    took_s: dict[str, float] = field(default_factory=dict)
    evidence_s: dict[str, float] = field(default_factory=dict)
    withdrawn: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def run(plan: CanaryPlan, say: Callable[[str], None]) -> CanaryReport:
    """The whole soak with its own upstream, Valkey and gateways."""
    key = new_key()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(upstream(os.sched_getaffinity(0), "bench.soak_variants"))
        valkey = stack.enter_context(Valkey())
        env = ADMIN_ENV | {
            "LLM_GATEWAY_REDIS_URL": valkey.url,
            "LLM_GATEWAY_REDIS_DEADLINE_S": "1",
            "LLM_GATEWAY_EXPOSE_BACKEND": "true",
        }
        documents = registry(plan, port, key)
        gateways = [stack.enter_context(QuietGateway(documents, key=key, env=env)) for _ in range(plan.gateways)]
        _until_running(gateways, plan)
        say(f"{len(gateways)} gateways, {plan.healthy} healthy canaries, one failing, one slow, {plan.seconds:g} s")
        began = time.monotonic()
        asked = uvloop.run(_load(plan, gateways, key))
        return _report(plan, gateways, asked, began)


def judge_report(report: CanaryReport, say: Callable[[str], None]) -> list[str]:
    """Print the figures; returns what did not hold."""
    for name, took_s in report.took_s.items():
        say(f"{name}: evidence after {report.evidence_s[name]:.1f} s, no call to it {max(took_s, 0):.2f} s later")
        say(f"{name}: {report.withdrawn.get(name, 'not withdrawn')}")
    healthy = {name: calls for name, calls in report.calls.items() if name not in (FAILING, SLOW)}
    kept = [name for name in healthy if name not in report.withdrawn]
    least = min(healthy.values(), default=0)
    say(f"healthy canaries that stayed: {len(kept)} of {len(healthy)}, each after {least} calls or more")
    return report.problems


def registry(plan: CanaryPlan, port: int, key: str) -> list[Document]:
    """The scenarios, each with its canary."""
    url = f"http://127.0.0.1:{port}/v1"
    models = {"base": "fails:0", "healthy": "fails:0.01", FAILING: "fails:0.2", SLOW: "late:0.8"}
    names = {f"healthy-{number}": "healthy" for number in range(plan.healthy)} | {FAILING: FAILING, SLOW: SLOW}
    return [
        *(backend(name, url, model=model) for name, model in models.items()),
        *(scenario(name, "base", canary=_canary(kind)) for name, kind in names.items()),
        tenant("acme"),
        api_key("acme-key", key),
    ]


def _canary(kind: str) -> dict[str, Any]:
    override = {"targets": [{"backend": kind}]}
    return {"percent": 50, "sticky": "request", "override": override, "abort": ABORT}


def _until_running(gateways: Sequence[QuietGateway], plan: CanaryPlan) -> None:
    deadline = time.monotonic() + _READY_S_MAX
    while not all(_states(each) == ["running"] * (plan.healthy + 2) for each in gateways):
        assert time.monotonic() < deadline, "the canaries do not begin"
        time.sleep(0.05)


def _states(gateway: QuietGateway) -> list[str]:
    return [each["state"] for each in get(gateway, "/rollouts")["rollouts"]]


async def _load(plan: CanaryPlan, gateways: Sequence[QuietGateway], key: str) -> Asked:
    asked, numbers = Asked(), itertools.count()
    paces = [
        Pace(gateway.port, key, name, plan.every_s, stream=True)
        for gateway in gateways
        for name in (
            *(f"healthy-{number}" for number in range(plan.healthy)),
            *(name for name in (FAILING, SLOW) for _ in range(plan.bad_callers)),
        )
    ]
    tasks = [asyncio.create_task(ask_on(pace, asked, lambda: f"c{next(numbers)}")) for pace in paces]
    await asyncio.sleep(plan.seconds)
    asked.stopping = True
    await asyncio.gather(*tasks)
    return asked


def _report(plan: CanaryPlan, gateways: Sequence[QuietGateway], asked: Asked, began: float) -> CanaryReport:
    report = CanaryReport(problems=list(asked.errors))
    for at, gateway in enumerate(gateways):
        for found in get(gateway, "/rollouts")["rollouts"]:
            name, is_bad = found["scenario"], found["scenario"] in (FAILING, SLOW)
            if found["state"] == "withdrawn":
                report.withdrawn[name] = found["reason"]
            if (found["state"] == "withdrawn") != is_bad:
                report.problems.append(f"gateway {at}: the canary {name} is {found['state']}: {found['reason']}")
    names = [f"healthy-{number}" for number in range(plan.healthy)]
    for name in (*names, FAILING, SLOW):
        report.calls[name] = sum(1 for each in _of_canary(asked.answers, name))
        if name in names and report.calls[name] < MIN_REQUESTS:
            report.problems.append(f"{name}: {report.calls[name]} calls of the canary are too few to judge")
    for name in (FAILING, SLOW):
        _judge_end(name, _of_canary(asked.answers, name), began, report)
    return report


def _of_canary(answers: Sequence[Answered], name: str) -> list[Answered]:
    return [each for each in answers if each.scenario == name and each.backend != "base"]


def _judge_end(name: str, answers: Sequence[Answered], began: float, report: CanaryReport) -> None:
    """How long after the evidence the last call went to a canary; only those of one that fails name no backend."""
    counts: dict[str, int] = dict.fromkeys(("requests", "failures", "streams", "slow"), 0)
    for each in answers:
        counts["requests"] += 1
        counts["failures"] += each.status >= 500
        counts["streams"] += each.status == 200
        counts["slow"] += each.status == 200 and each.ended - each.began > (BOUNDS.first_token_p95_s or 0)
        if judge(BOUNDS, [counts]):
            took_s = max(other.began for other in answers) - each.ended
            report.took_s[name], report.evidence_s[name] = took_s, each.ended - began
            if took_s > WITHIN_S:
                report.problems.append(f"{name}: calls went to the canary {took_s:.1f} s after the evidence")
            return
    report.problems.append(f"{name}: its {len(answers)} calls are no evidence")
