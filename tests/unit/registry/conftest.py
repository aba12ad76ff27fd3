"""An empty registry folder for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.registry.folders import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty registry folder of this test's own."""
    path = tmp_path / "registry"
    path.mkdir()
    return Folder(path)
