"""Settings are read from an empty folder and an environment without settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without ``.env`` files, and no ``LLM_GATEWAY_*`` variable; the directory."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("LLM_GATEWAY_"):
            monkeypatch.delenv(name)
    return tmp_path
