"""What a dashboard is made of, and its JSON as Grafana has it.

The format is the dashboard schema up to version 42, which Grafana reads since 12 and migrates further by itself; panels
are those of its core without Angular. https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

SCHEMA_VERSION = 42
COLUMNS = 24
TAG = "llm-gateway"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
FLEET = 'namespace=~"$namespace",job=~"$job"'
"""Stands where a query says ``FLEET``: the gateways that were chosen, by labels that Prometheus adds."""

Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]
Step = tuple[float, str]


class Query(NamedTuple):
    """PromQL, and what its series are called in Grafana's form ``{{label}}``."""

    expr: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel; ``unit`` is one of Grafana's.

    ``steps`` are thresholds: from this value on this colour, on top of green. ``stack`` adds the series up. ``instant``
    panels (stat, table, bar gauge) ask for one moment.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    steps: Sequence[Step] = ()
    stack: bool = False
    max: float | None = None
    decimals: int | None = None
    texts: Sequence[tuple[str, str, str]] = ()
    """Of values that are states: value, text, colour."""
    hidden: Sequence[str] = ()
    """Columns that a table leaves out."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of panels under a heading that is a question."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice among the values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A dashboard; ``uid`` is its address in Grafana, and without ``llm-gateway-`` the name of its file."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def panels(self) -> Iterator[Panel]:
        """Every panel."""
        for row in self.rows:
            yield from row.panels

    def as_json(self) -> dict[str, Any]:
        """What Grafana imports."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "refresh": "30s",
            "links": [_links()],
            "annotations": {"list": list(_annotations())},
            "templating": {"list": [_datasource(), *(_variable(each) for each in self.variables)]},
            "panels": list(_placed(self.rows)),
        }


NAMESPACE = Variable(name="namespace", label="Namespace", query="label_values(llm_gateway_build_info, namespace)")
JOB = Variable(name="job", label="Job", query='label_values(llm_gateway_build_info{namespace=~"$namespace"}, job)')
TENANT = Variable(name="tenant", label="Tenant", query="label_values(llm_gateway_requests_total{FLEET}, tenant)")
SCENARIO = Variable(
    name="scenario", label="Scenario", query="label_values(llm_gateway_requests_total{FLEET}, scenario)"
)
BACKEND = Variable(
    name="backend", label="Backend", query="label_values(llm_gateway_upstream_attempts_total{FLEET}, backend)"
)


def quantile(q: float, metric: str, matchers: str = "FLEET", *by: str) -> str:
    """The quantile of a histogram over the rate interval, by these labels."""
    labels = ", ".join((*by, "le"))
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))"


def expand(text: str) -> str:
    """A query as Grafana gets it."""
    return text.replace("FLEET", FLEET)


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The panels with their places, from left to right and top to bottom, each row under its heading."""
    number, y = 1, 0
    for row in rows:
        yield {
            "id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }  # fmt: skip
        number, y = number + 1, y + 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            yield _panel(panel, number) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}}
            number, x, height = number + 1, x + panel.width, max(height, panel.height)
        y += height


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(panel, place) for place in range(len(panel.queries))],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }
    if panel.kind == "table":
        excluded = dict.fromkeys(("Time", *panel.hidden), True)
        made["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": excluded, "indexByName": {}, "renameByName": {}}},
        ]
    return made


def _target(panel: Panel, place: int) -> dict[str, Any]:
    expr, legend = panel.queries[place]
    instant = panel.kind in {"stat", "table", "bargauge"}
    target = {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expand(expr),
        "legendFormat": legend or "__auto",
        "instant": instant,
        "range": not instant,
    }
    return target | ({"format": "table"} if panel.kind == "table" else {})


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *({"color": color, "value": value} for value, color in panel.steps)]
    made: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind != "timeseries" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "color": color, "index": index}}}
            for index, (value, text, color) in enumerate(panel.texts)
        ],
        "custom": _custom(panel),
    }
    if panel.kind in {"timeseries", "bargauge"}:
        made["min"] = 0
    if panel.max is not None:
        made["max"] = panel.max
    if panel.decimals is not None:
        made["decimals"] = panel.decimals
    return made


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stack else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    if panel.kind == "state-timeline":
        return {"fillOpacity": 70, "lineWidth": 0}
    if panel.kind == "table":
        return {"align": "auto", "cellOptions": {"type": "color-text" if panel.steps else "auto"}}
    return {}


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[Kind, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "none", "textMode": "auto"},
    "table": {"showHeader": True, "cellHeight": "sm"},
    "bargauge": {"reduceOptions": _LAST, "displayMode": "gradient", "orientation": "horizontal"},
    "state-timeline": {
        "showValue": "never",
        "mergeValues": True,
        "legend": {"displayMode": "list", "showLegend": True},
    },
}


def _links() -> dict[str, Any]:
    return {
        "type": "dashboards", "title": "LLM Gateway", "tags": [TAG], "asDropdown": True, "keepTime": True,
        "includeVars": True, "icon": "external link", "targetBlank": False, "tooltip": "", "url": "",
    }  # fmt: skip


_VERSIONS = "group by (version) (llm_gateway_build_info{FLEET}%s)"
_NEW_VERSION = f"{_VERSIONS % ''} unless {_VERSIONS % ' offset 5m'}"


def _annotations() -> Iterator[dict[str, Any]]:
    """What changed: most of what breaks was touched just before."""
    for name, color, expr, title in (
        ("Registry changed", "blue", "changes(llm_gateway_registry_generation{FLEET}[1m]) > 0", "Registry changed"),
        ("New version", "purple", _NEW_VERSION, "Version {{version}}"),
    ):
        yield {
            "name": name, "enable": True, "hide": False, "iconColor": color, "datasource": DATASOURCE,
            "expr": expand(expr), "step": "60s", "titleFormat": title, "textFormat": "{{pod}}",
        }  # fmt: skip


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "regex": "",
        "current": {}, "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1,
    }  # fmt: skip


def _variable(variable: Variable) -> dict[str, Any]:
    query = expand(variable.query)
    return {
        "name": variable.name, "label": variable.label, "type": "query", "datasource": DATASOURCE,
        "definition": query, "query": {"query": query, "refId": "StandardVariableQuery"}, "regex": "",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "allValue": ".*", "includeAll": True,
        "multi": True, "hide": 0, "options": [], "refresh": 2, "sort": 1,
    }  # fmt: skip
