"""What is made from the chart's values, from the settings and from the registry is up to date."""

from __future__ import annotations

from pathlib import Path

from tools.chart import made_files

CHART = Path(__file__).resolve().parents[2] / "charts" / "llm-gateway"


def test_made_files_are_those_that_are_there() -> None:
    """The schema, the table of the README and the example registry; ``make docs`` writes them."""
    made = made_files(CHART)
    for name, text in made.items():
        assert (CHART / name).read_text(encoding="utf-8") == text, f"{name}: run `make docs`"
    examples = {f"example/{path.name}" for path in (CHART / "example").iterdir()}
    assert examples == {name for name in made if name.startswith("example/")}
