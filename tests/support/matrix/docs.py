"""Writes the tables into a document: ``python -m tests.support.matrix.docs docs/dialects.md``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support.matrix.cells import tables

BEGIN: Final = "<!-- The tables below are made by `make docs` from what the tests show. -->\n"
END: Final = "<!-- Here they end. -->\n"


def written(document: str) -> str:
    """The document with the tables as they are now. Raises ValueError where it has no place for them."""
    before, _, rest = document.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError("the document has no place for the tables")
    return f"{before}{BEGIN}\n{tables().strip()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text("utf-8")), "utf-8")
