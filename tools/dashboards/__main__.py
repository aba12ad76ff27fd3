"""Writes the dashboards into the folder that is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.dashboards.backends import BACKENDS
from tools.dashboards.control import CONTROL
from tools.dashboards.cost import COST
from tools.dashboards.model import Dashboard
from tools.dashboards.overview import OVERVIEW
from tools.dashboards.tenants import TENANTS

ALL: tuple[Dashboard, ...] = (OVERVIEW, TENANTS, BACKENDS, COST, CONTROL)


def files() -> dict[str, str]:
    """The text of every file by its name."""
    return {
        f"{each.uid.removeprefix('llm-gateway-')}.json": json.dumps(each.as_json(), indent=2) + "\n" for each in ALL
    }


def main(folder: Path) -> None:
    """Write them."""
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
