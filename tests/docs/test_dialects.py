"""The tables of ``docs/dialects.md`` are those that the tests show."""

from __future__ import annotations

from pathlib import Path

from tests.support.matrix.docs import written

DOCUMENT = Path(__file__).parents[2] / "docs" / "dialects.md"


def test_the_tables_are_those_of_the_tests() -> None:
    """``make docs`` writes them."""
    document = DOCUMENT.read_text("utf-8")
    assert written(document) == document


def test_no_cell_is_empty() -> None:
    """Each is a yes, or a no with its reason."""
    rows = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.count("|") == 7]
    cells = [cell.strip() for row in rows for cell in row.split("|")[2:-1]]
    assert cells
    assert all(cell == "yes" or cell.startswith(("no (", "---")) or cell.isalpha() for cell in cells)
