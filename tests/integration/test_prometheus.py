"""What operators look at and are woken by, asked of a real Prometheus that scrapes real gateways under load."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.observed import Observed, observed
from tests.support.prometheus import Prometheus, program, wait_past
from tests.support.promql import Asked, asked_by_dashboards, asked_by_rules, groups, rules, selectors
from tests.support.waiting import eventually

LOAD_S = 15.0
"""How long the load runs before anything is asked: the windows of the queries want more than a few scrapes."""

MAY_BE_EMPTY = {
    "LLM Gateway / Backends: Ready endpoints": "only a backend that is a Service of a cluster has endpoints",
}
"""What has no data here, by its place, and why; nothing else may be empty, and these must be."""

PENDING = {
    "LLMGatewayAnswersInvalid",
    "LLMGatewayBackendDown",
    "LLMGatewayBackendKeyRefused",
    "LLMGatewayBackendMisconfigured",
    "LLMGatewayBackendThrottled",
    "LLMGatewayCanaryWithdrawn",
    "LLMGatewayErrorBudgetBurnFast",
    "LLMGatewayErrorBudgetBurnSlow",
    "LLMGatewayFallbackShareHigh",
    "LLMGatewayJwksFailing",
    "LLMGatewayKeyExpiring",
    "LLMGatewayRedisMayEvict",
    "LLMGatewayRegistryRefusedObjects",
    "LLMGatewayReplicasDisagree",
    "LLMGatewayTenantNearBudget",
}
"""Alerts of which the load is the cause; they wait for their time."""

QUIET = {
    "LLMGatewayLeasesLost",
    "LLMGatewayRedisDegraded",
    "LLMGatewayRegistryWatchStale",
    "LLMGatewayTargetAbsent",
    "LLMGatewayTargetDown",
    "LLMGatewayUsageExportBehind",
    "LLMGatewayUsageLost",
}
"""Alerts that nothing here is a cause of."""


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Observed, Prometheus]]:
    """The gateways under load, scraped for long enough."""
    program("prometheus")
    with observed() as seen:
        replicas = {
            f"127.0.0.1:{gateway.management_port}": {"namespace": "llm", "pod": f"gateway-{number}"}
            for number, gateway in enumerate(seen.gateways)
        }
        with Prometheus(replicas, rules_without_pauses(seen.gateways[0].folder)) as prometheus:
            eventually(lambda: len(prometheus.query("up == 1")) == 2, 20.0, what="both replicas are scraped")
            seen.change_registries()
            wait_past(time.monotonic() + LOAD_S)
            yield seen, prometheus


def rules_without_pauses(folder: Path) -> Path:
    """The rules as they are shipped, evaluated as often as Prometheus scrapes here."""
    path = folder / "alerts.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": each["name"], "rules": each["rules"]} for each in groups()]}))
    return path


def test_every_query_has_data(site: tuple[Observed, Prometheus], capsys: pytest.CaptureFixture[str]) -> None:
    """Of every panel, every annotation and every selector of a rule; none errs, and what may be empty is."""
    _, prometheus = site
    asked = [*asked_by_dashboards(), *selectors_of_rules(), *recorded()]
    unexpected: list[str] = []
    with capsys.disabled():
        sys.stdout.write("\n")
        for each in asked:
            expr = each.outside_grafana()
            count = sum(not math.isnan(sample.value) for sample in prometheus.query(expr))
            sys.stdout.write(f"{count:5} samples  {each.place}: {expr}\n")
            if (count == 0) != (each.place in MAY_BE_EMPTY):
                unexpected.append(f"{count} samples: {each.place}: {expr}")
    assert unexpected == []
    assert set(MAY_BE_EMPTY) <= {each.place for each in asked}


def selectors_of_rules() -> Iterator[Asked]:
    """What each rule looks at; whether it finds it wrong is another question."""
    for asked in asked_by_rules():
        for expr in sorted({selector.prettify() for selector in selectors(asked.expr)}):
            yield Asked(place=f"{asked.place}, of which", expr=expr)


def recorded() -> Iterator[Asked]:
    """What the recording rules made."""
    return (Asked(place="recorded", expr=rule["record"]) for rule in rules() if "record" in rule)


def test_every_rule_is_evaluated(site: tuple[Observed, Prometheus]) -> None:
    """By Prometheus itself, without an error; the alerts are those that the load is the cause of."""
    _, prometheus = site

    def evaluated() -> bool:
        states = {rule["name"]: rule for rule in prometheus.rules() if rule["type"] == "alerting"}
        quiet = {name for name, rule in states.items() if rule["state"] == "inactive"}
        assert QUIET - quiet == set()
        assert PENDING & quiet == set()
        return True

    eventually(evaluated, 10.0, every_s=0.5)
    assert [(rule["name"], rule["lastError"]) for rule in prometheus.rules() if rule["health"] != "ok"] == []
    assert [target["lastError"] for target in prometheus.targets() if target["health"] != "up"] == []


def test_a_broken_stream_spends_the_error_budget(site: tuple[Observed, Prometheus]) -> None:
    """Its status was 200 when its head was sent; what is counted is what became of it."""
    _, prometheus = site
    (broken,) = prometheus.query('sum(llm_gateway_stream_ends_total{backend="breaks",reason="reset"})')
    (failed,) = prometheus.query('sum(llm_gateway_requests_total{backend="breaks",code="502"})')
    assert broken.value > 0
    assert failed.value >= broken.value - 2  # a scrape may fall between the two
    (ratio,) = prometheus.query("fleet:llm_gateway_errors:ratio_rate5m")
    assert 0.0 < ratio.value < 1.0
