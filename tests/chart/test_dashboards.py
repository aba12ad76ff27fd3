"""The dashboards: what Grafana reads, what they ask, and that the files are what their description makes."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from tests.support.promql import CHART, WINDOW, Asked, asked_by_dashboards, dashboards, faults, panels, selectors
from tools.dashboards.__main__ import files

CORE_PANELS = {"timeseries", "stat", "table", "bargauge", "state-timeline", "row"}
UNITS = {"short", "reqps", "ops", "s", "bytes", "percentunit", "currencyUSD"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALL = dashboards()

each_dashboard = pytest.mark.parametrize("dashboard", ALL.values(), ids=list(ALL))
each_query = pytest.mark.parametrize("asked", list(asked_by_dashboards()), ids=lambda asked: asked.place)


def test_files_are_those_of_the_description() -> None:
    """A panel is changed in tools/dashboards; ``make docs`` writes the files."""
    assert set(ALL) == set(files())
    for name, text in files().items():
        assert (CHART / "dashboards" / name).read_text() == text, f"run `make docs`: {name}"


@each_dashboard
def test_a_dashboard_is_for_current_grafana(dashboard: dict[str, Any]) -> None:
    """A schema that Grafana 12 has, panels of its core, no Angular, an address of its own."""
    assert dashboard["schemaVersion"] == 42
    assert {panel["type"] for panel in dashboard["panels"]} <= CORE_PANELS
    assert re.fullmatch(r"[a-z0-9-]{8,40}", dashboard["uid"])
    assert dashboard["title"].startswith("LLM Gateway / ")
    assert dashboard["description"]
    assert "id" not in dashboard  # Grafana's own, which differs from one to the next


@each_dashboard
def test_the_data_source_and_the_fleet_are_chosen(dashboard: dict[str, Any]) -> None:
    """Nothing names a data source of ours; whoever has several clusters chooses one, and what is in it."""
    first, *rest = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    names = [each["name"] for each in rest]
    assert names[:2] == ["namespace", "job"]
    for each in rest:
        assert (each["type"], each["datasource"], each["allValue"]) == ("query", DATASOURCE, ".*")
    for panel in panels(dashboard):
        assert panel["datasource"] == DATASOURCE
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    used = set(re.findall(r"\$(\w+)", str([panel["targets"] for panel in panels(dashboard)])))
    assert {name for name in used if not name.startswith("__")} == set(names)


@each_dashboard
def test_a_panel_says_what_it_means(dashboard: dict[str, Any]) -> None:
    """With a title, a unit and a description that helps whoever is woken by it."""
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)
    for panel in panels(dashboard):
        assert len(panel["description"].split()) >= 8, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


@each_dashboard
def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """Each has a place of its own within the 24 columns, and a number of its own."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for this, other in combinations(places, 2):
        beside = this["x"] + this["w"] <= other["x"] or other["x"] + other["w"] <= this["x"]
        above = this["y"] + this["h"] <= other["y"] or other["y"] + other["h"] <= this["y"]
        assert beside or above, (this, other)
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


@each_query
def test_a_query_asks_for_what_there_is(asked: Asked) -> None:
    """It is PromQL, and every metric and label in it is one of the gateway's families."""
    assert list(faults(asked.outside_grafana())) == []


@each_query
def test_a_query_asks_for_the_fleet_that_was_chosen(asked: Asked) -> None:
    """Each selector of a gateway's metric is narrowed to namespace and job, so that two fleets are never mixed."""
    for selector in selectors(re.sub(r"\$__\w+", WINDOW, asked.expr)):
        chosen = {(each.name, each.value) for each in selector.matchers.matchers}
        assert {("namespace", "$namespace"), ("job", "$job")} <= chosen, selector.name


@each_query
def test_a_legend_names_labels_that_the_series_have(asked: Asked) -> None:
    """What is not grouped by is gone and would be shown as nothing."""
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", asked.expr))))
    for label in re.findall(r"\{\{(\w+)\}\}", asked.legend):
        assert label in grouped, asked.legend


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sum(rate(llm_gateway_request_total[5m]))", "no metric llm_gateway_request_total"),
        ('llm_gateway_requests_total{model="x"}', "llm_gateway_requests_total has no label model"),
        ("sum by (status) (llm_gateway_requests_total)", "nothing has a label status"),
        (
            "histogram_quantile(0.9, sum by (le) (llm_gateway_overhead_seconds))",
            "no metric llm_gateway_overhead_seconds",
        ),
    ],
)
def test_a_wrong_query_is_found(query: str, fault: str) -> None:
    """The check that the others rely on."""
    assert fault in list(faults(query))


def test_what_is_no_promql_is_found() -> None:
    """It does not parse."""
    with pytest.raises(ValueError, match="."):
        list(faults("sum(rate(llm_gateway_requests_total[5m])"))
