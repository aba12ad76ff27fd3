"""The parts of the bench that measure limits: what counts as an error, what proves that limits were on, budgets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from bench.client import Caller, Counts, Load
from bench.limits import LIMITS, NOTHING_LEFT, limited_registry, shortfall
from bench.measure import Results
from bench.report import rates, ratio, table, verdict
from bench.wrk import script
from tests.support.metrics import Scrape

_DEGRADED = 'llm_gateway_degraded_total{dependency="limits",policy="local"} %d\n'
_ANSWERED = 'llm_gateway_requests_total{tenant="%s",code="%d"} %d\n'
_REPLY = b"HTTP/1.1 %d Whatever\r\ncontent-length: 2\r\n\r\n{}"


class Wire(asyncio.Transport):
    """A transport that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        """Remember it."""
        self.written.append(bytes(data))

    def abort(self) -> None:
        """Remember that."""
        self.aborted = True


@pytest.mark.parametrize(("status", "answered", "is_good"), [(200, 200, True), (429, 429, True), (429, 200, False)])
def test_our_own_client_takes_one_status_only(status: int, answered: int, is_good: bool) -> None:
    """A refusal is what a load of refusals waits for, and nothing else is."""
    counts, wire = Counts(), Wire()
    caller = Caller(Load(1, b"request", 1, status=status), counts)
    caller.connection_made(cast("asyncio.BaseTransport", wire))
    caller.data_received(_REPLY % answered)
    assert wire.aborted is not is_good
    assert len(counts.failures) == (0 if is_good else 1)
    assert wire.written == ([b"request", b"request"] if is_good else [b"request"])


def test_wrk_counts_every_other_status() -> None:
    """Its own count of failures will do for 200; for a refusal each answer is looked at."""
    plain, refused = script(Path("/body"), "key"), script(Path("/body"), "key", 429)
    assert "e.status" in plain
    assert "response" not in plain
    assert "status ~= 429" in refused
    assert "e.status" not in refused
    assert "{" in plain
    assert "{{" not in plain + refused


def test_one_limit_of_each_kind_is_on() -> None:
    """Both tenants have as many, so that a refusal is compared with its like; a single call uses one of them up."""
    of = {each["metadata"]["name"]: each["spec"] for each in limited_registry(1) if each["kind"] == "Tenant"}
    assert of["limited"]["limits"] == list(LIMITS)
    assert of["used-up"]["limits"] == list(NOTHING_LEFT)
    assert len(NOTHING_LEFT) == len(LIMITS)
    assert [each for each in NOTHING_LEFT if each not in LIMITS] == [{"unit": "requests", "per": "month", "amount": 1}]
    assert "limits" not in of["bench"]
    kinds = {(each["unit"], each.get("per")) for each in LIMITS}
    assert kinds == {
        ("requests", "minute"),
        ("tokens", "minute"),
        ("concurrency", None),
        ("tokens", "day"),
        ("cost", "month"),
    }


@pytest.mark.parametrize(
    ("metrics", "in_ledger", "problem"),
    [
        (_ANSWERED % ("limited", 200, 5), 5, ""),
        (_ANSWERED % ("limited", 200, 5), 6, ""),
        (_ANSWERED % ("limited", 200, 5), 4, "the ledger has 4"),
        (_ANSWERED % ("limited", 429, 5), 0, "0 calls were answered"),
        (_ANSWERED % ("bench", 200, 5), 0, "0 calls were answered"),
        (_ANSWERED % ("limited", 200, 5) + _DEGRADED % 2, 5, "2 limits were decided without Redis"),
    ],
)
def test_what_was_measured_was_limited_and_counted(metrics: str, in_ledger: int, problem: str) -> None:
    """A call without Redis, or one that the ledger does not know, is not what the line says."""
    found = shortfall(Scrape(metrics), in_ledger)
    assert found == "" if not problem else problem in found


def test_a_refusal_is_held_against_an_admitted_call_of_its_round() -> None:
    """And limits against the plain proxies, which have none."""
    results = Results()
    for admitted, refused, envoy in ((100.0, 45.0, 80.0), (300.0, 160.0, 200.0), (110.0, 40.0, 60.0)):
        results.add("admitted", "gateway", admitted)
        results.add("admitted", "envoy", envoy)
        results.add("refused", "gateway", refused)
    assert ratio(results, "refused", "gateway", "gateway", "admitted") == pytest.approx(0.45)
    assert (verdict(results, "refused"), verdict(results, "admitted")) == ("met", "met")
    line = next(each for each in table(results, ["gateway", "envoy"]).splitlines() if "refused" in each)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["45.0 (40.0-160)", "-", "-", "0.5 x admitted", "met"]
    results.values["refused", "gateway"] = [51.0, 160.0, 56.0]
    assert verdict(results, "refused") == "MISSED"
    del results.values["admitted", "gateway"]
    assert verdict(results, "refused") == "not judged: no admitted"


def test_rates_name_only_what_was_measured() -> None:
    """A row that was left out has no line."""
    results = Results()
    results.rates["refused", "gateway"] = [9000.0]
    assert rates(results, ["gateway", "envoy"]) == "- refused requests per second while measured: gateway 9000\n"
