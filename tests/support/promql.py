"""What dashboards and alerts ask, taken apart and held against the metrics that the gateway really has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml

from gateway.telemetry.exposition import build_family, registry_families
from gateway.telemetry.families import ACCUMULATED

CHART = Path(__file__).resolve().parents[2] / "charts" / "llm-gateway"
TARGET = frozenset({"namespace", "job", "pod", "instance"})
"""Labels that Prometheus adds to what it scrapes."""

FLEET = frozenset({"namespace", "job"})
WINDOW = "20s"
"""Stands for Grafana's intervals where a query is asked outside of it."""


class Asked(NamedTuple):
    """One query: where it stands, what it says, and of a panel the legend."""

    place: str
    expr: str
    legend: str = ""

    def outside_grafana(self) -> str:
        """The query with every variable as Grafana has it when all is chosen."""
        return re.sub(r"\$(namespace|job|tenant|scenario|backend)\b", ".*", re.sub(r"\$__\w+", WINDOW, self.expr))


@cache
def known_series() -> dict[str, frozenset[str]]:
    """Every series that a gateway can show, and its process metrics, by name, with its labels."""
    known: dict[str, frozenset[str]] = {}
    for spec in ACCUMULATED:
        labels = frozenset(spec.labels)
        if spec.kind == "histogram":
            known |= {f"{spec.name}_bucket": labels | {"le"}}
            known |= {f"{spec.name}_sum": labels, f"{spec.name}_count": labels}
        else:
            known[spec.name] = labels
    for family in (*registry_families(()), build_family("1")):
        name = family.name + ("_info" if family.type == "info" else "")
        known[name] = frozenset(getattr(family, "_labelnames", ()))
    known["llm_gateway_build_info"] = frozenset({"version", "python_version"})
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "up"):
        known[name] = frozenset()
    known["ALERTS"] = frozenset({"alertname", "alertstate", "severity", "backend", "tenant"})
    return known | {rule["record"]: FLEET for rule in rules() if "record" in rule}


@cache
def groups() -> list[dict[str, Any]]:
    """The groups of rules."""
    loaded: list[dict[str, Any]] = yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())["groups"]
    return loaded


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    return [rule for group in groups() for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Every rule that is an alert; several may have one name."""
    return [rule for rule in rules() if "alert" in rule]


def asked_by_rules() -> Iterator[Asked]:
    """What every rule asks."""
    for rule in rules():
        yield Asked(place=f"rule {rule.get('alert') or rule['record']}", expr=rule["expr"])


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards as Grafana gets them, by the name of their file."""
    return {path.name: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels of a dashboard that ask something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def asked_by_dashboards() -> Iterator[Asked]:
    """What every panel and every annotation asks."""
    for dashboard in dashboards().values():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                place = f"{dashboard['title']}: {panel['title']}"
                yield Asked(place=place, expr=target["expr"], legend=target["legendFormat"])
        for annotation in dashboard["annotations"]["list"]:
            yield Asked(place=f"{dashboard['title']}: annotation {annotation['name']}", expr=annotation["expr"])


def selectors(expr: str) -> list[promql_parser.VectorSelector]:
    """Every selector of a query. Raises ValueError where it is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


def labels_of(expr: promql_parser.Expr) -> set[str]:
    """Every label that the series of an expression may have before they are aggregated."""
    names = {str(each.name) for each in selectors(expr.prettify())}
    return set(TARGET).union(*(known_series().get(name, ()) for name in names))


def faults(expr: str) -> Iterator[str]:
    """What is wrong with a query: metrics that are none, labels that they have not. Raises ValueError for no PromQL."""
    for selector in selectors(expr):
        name = str(selector.name)
        if name not in known_series():
            yield f"no metric {name}"
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in known_series()[name] | TARGET:
                yield f"{name} has no label {matcher.name}"
    wrong: list[str] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            wrong.extend(f"nothing has a label {name}" for name in set(node.modifier.labels) - labels_of(node.expr))

    promql_parser.walk(promql_parser.parse(expr), visit)
    yield from wrong
