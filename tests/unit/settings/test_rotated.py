"""A credential of the settings that changes with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, rotated_secret
from gateway.settings.schema import is_token

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def file(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the admin token, as Kubernetes mounts it: a link into a folder that is swapped."""
    (empty_place / "..1").mkdir()
    (empty_place / "..1" / "token").write_text(f"{FIRST}\n")
    (empty_place / "..data").symlink_to("..1")
    path = empty_place / "token"
    path.symlink_to("..data/token")
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_TOKEN_FILE", str(path))
    return path


def swap(file: Path, content: str | None) -> None:
    """Put another folder in the place of the one before; without content it has no such file."""
    folder = file.parent / f"..{len(list(file.parent.iterdir()))}"
    folder.mkdir()
    if content is not None:
        (folder / "token").write_text(content)
    link = file.parent / "..data_tmp"
    link.symlink_to(folder.name)
    link.replace(file.parent / "..data")


def test_it_changes_with_its_file(file: Path) -> None:
    """At the next use; the newline at the end is no part of it."""
    secret = rotated_secret(Settings.load(), "admin_token", is_token)
    assert secret() == FIRST
    swap(file, f"{SECOND}\n")
    assert secret() == SECOND


def test_what_changed_before_the_first_use_counts(file: Path) -> None:
    """A worker that takes the place of one that died has settings from before; the token of then opens nothing."""
    settings = Settings.load()
    swap(file, SECOND)
    assert rotated_secret(settings, "admin_token", is_token)() == SECOND


def test_what_was_good_stays(file: Path) -> None:
    """While the file is away, empty, or holds what could be no token; and a good one is taken after that."""
    secret = rotated_secret(Settings.load(), "admin_token", is_token)
    for bad in (None, "", "short", "\xff" * 20, "x" * 70_000):
        swap(file, bad)
        assert secret() == FIRST
    swap(file, SECOND)
    assert secret() == SECOND


def test_one_that_was_given_directly_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an option, which wins over the file; by the environment; or not at all."""
    option = rotated_secret(Settings.load(admin_token=SECOND), "admin_token", is_token)
    swap(file, FIRST[::-1])
    assert option() == SECOND
    monkeypatch.delenv("LLM_GATEWAY_ADMIN_TOKEN_FILE")
    assert rotated_secret(Settings.load(), "admin_token", is_token)() is None
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_TOKEN", FIRST)
    assert rotated_secret(Settings.load(), "admin_token", is_token)() == FIRST
