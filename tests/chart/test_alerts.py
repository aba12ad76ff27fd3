"""The alerts: what Prometheus says of the rules, their unit tests, and what stands with each of them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.support.prometheus import program
from tests.support.promql import CHART, Asked, alerts, asked_by_rules, faults, rules

TESTS = Path(__file__).parent / "rules"
RULES = CHART / "rules" / "alerts.yaml"
SEVERITIES = {"critical", "warning"}


@pytest.mark.parametrize("asked", list(asked_by_rules()), ids=lambda asked: asked.place)
def test_a_rule_asks_for_what_there_is(asked: Asked) -> None:
    """It is PromQL, and every metric and label in it is one of the gateway's families."""
    assert list(faults(asked.expr)) == []


def test_an_alert_says_what_is_wrong_and_what_to_do() -> None:
    """Each has a severity, a summary, a description and the link to its section of the runbook."""
    for alert in alerts():
        assert alert["labels"]["severity"] in SEVERITIES, alert["alert"]
        notes = alert["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}, alert["alert"]
        assert notes["runbook_url"] == f"RUNBOOK_BASE/#{alert['alert'].lower()}"
        assert len(notes["summary"]) <= 80, alert["alert"]
        assert len(notes["description"].split()) >= 8, alert["alert"]
        assert alert["alert"].startswith("LLMGateway")


def test_an_alert_keeps_the_fleet() -> None:
    """Two installations that one Prometheus scrapes are told apart by namespace and job."""
    for alert in alerts():
        for labels in re.findall(r"\bby \(([^)]*)\)", alert["expr"]):
            assert labels.startswith("namespace, job"), alert["alert"]


def test_alerts_of_one_name_differ_by_a_label() -> None:
    """Else one would hide the other."""
    keys = [(alert["alert"], alert["labels"].get("sign", "")) for alert in alerts()]
    assert len(set(keys)) == len(keys)
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert len(set(recorded)) == len(recorded)


def promtool(*arguments: str) -> str:
    """What promtool has against something; empty where it has nothing."""
    done = subprocess.run([program("promtool"), *arguments], cwd=TESTS, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    """Syntax, templates and labels, by Prometheus' own check."""
    assert promtool("check", "rules", str(RULES)) == ""


def test_unit_tests_of_the_alerts_pass() -> None:
    """Each fires when it should, and does not otherwise, by promtool."""
    with ThreadPoolExecutor(2) as pool:
        names = sorted(path.name for path in TESTS.glob("*.yaml"))
        assert "".join(pool.map(lambda name: promtool("test", "rules", name), names)) == ""


def test_every_alert_has_unit_tests() -> None:
    """One in which it fires and one in which it does not."""
    fires: Counter[tuple[str, str]] = Counter()
    rests: Counter[str] = Counter()
    for path in TESTS.glob("*.yaml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                rests[case["alertname"]] += not case["exp_alerts"]
                fires.update((case["alertname"], each["exp_labels"].get("sign", "")) for each in case["exp_alerts"])
    for alert in alerts():
        assert fires[alert["alert"], alert["labels"].get("sign", "")], alert["alert"]
        assert rests[alert["alert"]], alert["alert"]
