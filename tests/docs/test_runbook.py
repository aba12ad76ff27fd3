"""docs/runbook.md: whoever is woken finds the section of the alert, and all that it links to and asks for is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.promql import alerts, dashboards, faults

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$", "", RUNBOOK, flags=re.MULTILINE | re.DOTALL)
PARTS = ("**Means.**", "**Confirm.**", "**Do.**")


def slug(heading: str) -> str:
    """The anchor that GitHub and GitLab give a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


def sections(document: str) -> dict[str, str]:
    """The text of each heading's own section by its anchor."""
    parts = re.split(r"^#+ (.*)$", document, flags=re.MULTILINE)
    return {slug(heading): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_alert_has_its_section_and_no_section_is_of_none() -> None:
    """It says what the alert means, how to be sure, and what to do."""
    found = sections(RUNBOOK)
    linked = {alert["annotations"]["runbook_url"].removeprefix("RUNBOOK_BASE/#") for alert in alerts()}
    assert linked == {anchor for anchor in found if anchor.startswith("llmgateway")}
    for anchor in linked:
        assert all(part in found[anchor] for part in PARTS), anchor


def test_the_routine_days_have_sections() -> None:
    """What operators do when nothing is wrong."""
    routine = "onboarding-a-tenant rotating-a-key redis-maintenance upgrade-and-rollback a-node-drain several-clusters"
    assert set(routine.split()) <= set(sections(RUNBOOK))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", RUNBOOK))))
def test_a_link_leads_to_a_heading(target: str) -> None:
    """Of this document or of another."""
    path, _, anchor = target.partition("#")
    document = RUNBOOK if not path else (ROOT / "docs" / path).read_text(encoding="utf-8")
    assert anchor in sections(document)


def test_its_queries_ask_for_what_there_is() -> None:
    """Every piece of code that names a metric is PromQL that finds it."""
    codes = re.findall(r"`([^`\n]*(?:\n[^`\n]*)?)`", PROSE)
    queries = [code for code in codes if "llm_gateway_" in code]
    assert len(queries) >= 8
    for query in queries:
        assert list(faults(" ".join(query.split()))) == [], query


def test_the_panels_that_it_names_exist() -> None:
    """What stands in quotation marks is the title of a panel or of a row."""
    titles = {panel["title"] for dashboard in dashboards().values() for panel in dashboard["panels"]}
    rows = {title.partition(":")[0].partition(",")[0] for title in titles}
    for title in re.findall(r'"([^"]+)"', re.sub(r"`[^`]*`", "", PROSE)):
        text = " ".join(title.split())
        assert text in titles or text in rows, text
