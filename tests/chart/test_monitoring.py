"""What is handed to Prometheus and Grafana is what is in the chart's files."""

from __future__ import annotations

import json
import re

import yaml

from tests.support.chart import CHART, kinds, one, render, rendered

RUNBOOK = "https://git.example.com/llm-gateway/docs/runbook.md"


def test_dashboards_are_found_by_the_sidecar() -> None:
    """One ConfigMap with every dashboard as it is in the file, under the label that the sidecar looks for."""
    config = one(rendered("everything"), "ConfigMap", "-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["annotations"] == {"grafana_folder": "LLM Gateway"}
    files = {f"llm-gateway-{path.name}": path for path in (CHART / "dashboards").glob("*.json")}
    data = config["data"]
    assert data.keys() == files.keys()
    assert len(data) >= 5
    for name, path in files.items():
        assert json.loads(data[name]) == json.loads(path.read_text(encoding="utf-8"))
    assert len(json.dumps(config)) < 1_000_000, "the most that Kubernetes takes"


def test_alerts_are_those_of_the_file_with_links_that_lead_somewhere() -> None:
    """Every group, word for word, but for the place of the runbook."""
    text = (CHART / "rules" / "alerts.yaml").read_text(encoding="utf-8")
    wanted = yaml.safe_load(text.replace("RUNBOOK_BASE/", RUNBOOK))
    rule = one(rendered("everything"), "PrometheusRule")
    assert rule["spec"] == wanted
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    links = re.findall(r"runbook_url: (\S+)", yaml.safe_dump(rule["spec"], width=1000))
    assert len(links) > 10
    assert all(re.fullmatch(re.escape(RUNBOOK) + "#[a-z0-9-]+", link) for link in links)


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    """The CRDs of the Prometheus Operator are not in every cluster."""
    objects = render({})
    assert not {"ServiceMonitor", "PrometheusRule"} & kinds(objects)
    assert not [each for each in objects if each["metadata"]["name"].endswith("-dashboards")]


def test_scrapes_find_the_management_port() -> None:
    """Of this namespace only, with what values say of the series."""
    (endpoint,) = one(rendered("everything"), "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == one(rendered("everything"), "Service", "-management")["spec"]["ports"][0]["name"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["interval"] == "30s"
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
