"""What ``make`` says on a machine where something is missing. The Pythons here are stand-ins of a few lines."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.arch.source import ROOT

NAMES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3", "python")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the script with an empty lock, beside a folder ``bin`` that stands first in the path."""
    for name in ("tools", "bin"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "tools" / "environment.sh", tmp_path / "tools")
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def stand_in(project: Path, name: str, script: str) -> Path:
    """A program of this name in the path."""
    path = project / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def run(project: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script there."""
    return subprocess.run(
        [project / "tools" / "environment.sh", "requirements.lock"],
        env={"PATH": f"{project / 'bin'}:/usr/bin:/bin", "SYSTEM_PYTHON": "/nowhere/python3", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_python_is_new_enough(project: Path) -> None:
    """The text says which is needed, which was found and how to get one."""
    for name in NAMES:
        stand_in(project, name, 'test "$1" = --version && exec echo Python 3.9.2; exit 1')
    result = run(project)
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed; found Python 3.9.2." in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr
    assert not (project / ".venv").exists()


def test_the_systems_python_comes_first(project: Path) -> None:
    """It is built for speed; a Python that stands first in the path is second to it."""
    for name in NAMES:
        stand_in(project, name, "echo taken >&2; exit 0")
    system = stand_in(project, "system", 'case "$*" in *"-m venv"*) echo system >&2; exit 1;; esac')
    result = run(project, SYSTEM_PYTHON=str(system))
    assert "system" in result.stderr.splitlines()
    assert "taken" not in result.stderr


def test_named_python_does_not_start(project: Path) -> None:
    """The variable is named, and no other Python is taken instead."""
    result = run(project, PYTHON="/nowhere/python3")
    assert result.returncode == 1
    assert result.stderr == "PYTHON=/nowhere/python3 does not start, or is older than Python 3.11.\n"


def test_python_without_venv(project: Path) -> None:
    """Debian packs venv apart; the text names the package."""
    python = stand_in(project, "python3", 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac')
    result = run(project, PYTHON=str(python))
    assert result.returncode == 1
    assert "apt-get install python3-venv (or python3.12-venv)" in result.stderr
    assert not (project / ".venv").exists()


def test_python_without_venv_is_skipped_where_another_has_it(project: Path) -> None:
    """Debian's own Python beside one that a person installed; where none has it the first one is named."""
    bare = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac'
    for name in NAMES:
        stand_in(project, name, bare)
    system = stand_in(project, "system", bare.replace("3.12", "3.11"))
    result = run(project, SYSTEM_PYTHON=str(system))
    assert result.returncode == 1
    assert result.stderr == (
        f"{system} has no venv module with pip in it.\n"
        "  Debian or Ubuntu: apt-get install python3-venv (or python3.11-venv)\n"
    )
    stand_in(project, "python3.12", 'case "$*" in *"-m venv"*) echo taken >&2; exit 1;; esac')
    assert "taken" in run(project, SYSTEM_PYTHON=str(system)).stderr.splitlines()


def test_failed_installation_is_not_remembered(project: Path) -> None:
    """The next run tries again instead of taking half an environment for a whole one."""
    installed = 'case "$*" in *install*) echo no index >&2; exit 1;; esac'
    python = stand_in(
        project,
        "python3",
        f'case "$*" in *"-m venv"*) mkdir -p .venv/bin; printf "#!/bin/sh\\n%s\\n" \'{installed}\' >.venv/bin/python;'
        " chmod +x .venv/bin/python;; esac",
    )
    for _ in range(2):
        result = run(project, PYTHON=str(python))
        assert result.returncode == 1
        assert "no index\nThe packages could not be installed: is a package index (PyPI) reachable?" in result.stderr
