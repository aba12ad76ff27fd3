"""The locks and the project file say the same thing."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from tests.arch.source import ROOT

LOCKS = ["requirements.lock", "requirements-embedded.lock", "requirements-dev.lock", "requirements-bench.lock"]


@cache
def pins(lock: str) -> dict[str, str]:
    """Every requirement of a lock with its version, markers and hashes, by name."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    entries = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)(==.*\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    assert sum(len(name) + len(rest) for name, rest in entries) == len(text), "something else is in the lock"
    return dict(entries)


@cache
def project() -> dict[str, Any]:
    """The project file."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_index_is_named(lock: str) -> None:
    """A lock is names, versions, markers and hashes only; where they come from is the installer's business."""
    assert pins(lock)


@pytest.mark.parametrize(("smaller", "larger"), list(pairwise(LOCKS)))
def test_each_lock_is_part_of_the_next(smaller: str, larger: str) -> None:
    """A package has one version everywhere, so that what is tested is what is shipped."""
    versions = {name: pin.partition(" ")[0] for name, pin in pins(larger).items()}
    for name, pin in pins(smaller).items():
        assert versions.get(name) == pin.partition(" ")[0], name


def test_locks_hold_what_the_project_asks_for() -> None:
    """Adding a dependency and forgetting ``make lock`` is found here."""
    groups = project()["dependency-groups"]
    optional = project()["project"]["optional-dependencies"]
    wanted = [*project()["project"]["dependencies"], *groups["build"]]
    for lock, more in zip(LOCKS, [[], optional["embedded"], groups["dev"], groups["bench"]], strict=True):
        wanted += more
        names = {re.split(r"[=<>\[;]", item)[0].strip().lower().replace("_", "-") for item in wanted}
        assert names <= pins(lock).keys(), lock


def test_lock_holds_the_build_backend_that_the_project_names() -> None:
    """The project installs offline from its lock, without build isolation."""
    (backend,) = project()["build-system"]["requires"]
    name, version = backend.split("==")
    assert pins("requirements.lock")[name].startswith(f"=={version}")
