"""docs/observability.md lists what a real gateway shows: every metric of a scrape, every field of a request's line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from gateway.errors import Outcome
from tests.support.gateway import GatewayProcess

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")


def test_every_metric_is_listed_with_type_and_meaning(echo_gateway: GatewayProcess) -> None:
    """A metric that is added, renamed or explained otherwise changes the document."""
    scrape = echo_gateway.management("/metrics").body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", scrape, re.MULTILINE))
    ours = {name: text for name, text in re.findall(r"^# HELP (\S+) (.*)$", scrape, re.MULTILINE) if _is_ours(name)}
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert {name: (kind, text) for name, kind, _, text in rows} == {name: (kinds[name], ours[name]) for name in ours}


def _is_ours(name: str) -> bool:
    return name.startswith(("llm_gateway_", "gen_ai_"))


def test_labels_are_those_that_are_listed(echo_gateway: GatewayProcess) -> None:
    """Every label of a sample is in its metric's row."""
    with echo_gateway.client() as client:
        client.request("/v1/chat/completions", {"model": "chat", "messages": []}, key=echo_gateway.key)
    listed = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(\w+)` \| \w+ \| ([^|]*) \|", DOCUMENT, re.MULTILINE)
    }
    scrape = echo_gateway.management("/metrics").body.decode()
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", scrape, re.MULTILINE):
        if _is_ours(name):
            family = name if name in listed else re.sub(r"_(bucket|sum|count)$", "", name)
            assert set(re.findall(r'(\w+)="', labels)) - {"le"} == listed[family], name


def test_every_field_of_a_line_is_listed(echo_gateway: GatewayProcess) -> None:
    """A field that is added or renamed changes the document."""
    with echo_gateway.client() as client:
        client.request("/v1/models", key=echo_gateway.key)
    line = echo_gateway.wait_for_log(lambda line: line.get("event") == "request")
    section = DOCUMENT.partition("## The line per request\n")[2].partition("\n## ")[0]
    listed = [
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(listed) == sorted(line)


def test_every_outcome_of_an_attempt_is_listed() -> None:
    """The words of the label ``outcome``."""
    section = DOCUMENT.partition("The label `outcome`")[2].partition("##")[0]
    for outcome in get_args(Outcome):
        assert f"`{outcome}`" in section, outcome
