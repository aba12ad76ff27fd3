"""What a registry document can and cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.settings import SecretReader, SecretUnavailable, Settings


@pytest.fixture
def folder(empty_place: Path) -> Path:
    """The secrets folder."""
    path = empty_place / "secrets"
    path.mkdir()
    return path


@pytest.fixture
def reader(folder: Path) -> SecretReader:
    """A reader with that folder."""
    return SecretReader(Settings.load(secrets_dir=folder))


def test_variable_is_read_without_its_newline(monkeypatch: pytest.MonkeyPatch, empty_place: Path) -> None:
    """The process environment wins over the .env file."""
    monkeypatch.setenv("LLM_GATEWAY_SECRET_A", "from-process\n")
    (empty_place / ".env").write_text("LLM_GATEWAY_SECRET_A=x\nLLM_GATEWAY_SECRET_B=from-file\n")
    reader = SecretReader(Settings.load())
    assert reader.env("LLM_GATEWAY_SECRET_A") == b"from-process"
    assert reader.env("LLM_GATEWAY_SECRET_B") == b"from-file"


@pytest.mark.parametrize(
    "name",
    ["HOME", "LLM_GATEWAY_SECRET_", "LLM_GATEWAY_SECRET_a", "LLM_GATEWAY_REDIS_URL", "XLLM_GATEWAY_SECRET_A", ""],
)
def test_no_other_variable_can_be_read(name: str, reader: SecretReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only names with the prefix are looked up, set or not."""
    monkeypatch.setenv(name or "X", "hunter2")
    with pytest.raises(SecretUnavailable, match="must match LLM_GATEWAY_SECRET_") as caught:
        reader.env(name)
    assert "hunter2" not in str(caught.value)


def test_missing_and_empty_variables_are_told_apart_from_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to do."""
    monkeypatch.setenv("LLM_GATEWAY_SECRET_EMPTY", "\n")
    reader = SecretReader(Settings.load())
    with pytest.raises(SecretUnavailable, match="LLM_GATEWAY_SECRET_NONE is not set"):
        reader.env("LLM_GATEWAY_SECRET_NONE")
    with pytest.raises(SecretUnavailable, match="LLM_GATEWAY_SECRET_EMPTY is empty"):
        reader.env("LLM_GATEWAY_SECRET_EMPTY")


@pytest.mark.parametrize(
    ("content", "secret"), [(b"abc", b"abc"), (b"abc\n", b"abc"), (b"abc\r\n", b"abc"), (b"abc\n\n", b"abc\n")]
)
def test_file_is_read_without_one_newline(content: bytes, secret: bytes, folder: Path, reader: SecretReader) -> None:
    """Editors end files with a newline; anything more is content."""
    (folder / "key").write_bytes(content)
    assert reader.file("key") == secret


def test_file_is_read_again_each_time(folder: Path, reader: SecretReader) -> None:
    """A rotated secret is seen."""
    (folder / "key").write_text("one")
    assert reader.file("key") == b"one"
    (folder / "key").write_text("two")
    assert reader.file("key") == b"two"


def test_links_of_a_kubernetes_mount_are_followed(folder: Path, reader: SecretReader) -> None:
    """KEY -> ..data/KEY, ..data -> ..2026_11_22/: all inside the folder."""
    (folder / "..2026_11_22").mkdir()
    (folder / "..2026_11_22" / "key").write_text("abc")
    (folder / "..data").symlink_to("..2026_11_22")
    (folder / "key").symlink_to("..data/key")
    assert reader.file("key") == b"abc"


def test_folder_that_is_a_link_works(empty_place: Path, folder: Path) -> None:
    """The setting itself may name a link."""
    (folder / "key").write_text("abc")
    (empty_place / "link").symlink_to(folder)
    assert SecretReader(Settings.load(secrets_dir=empty_place / "link")).file("key") == b"abc"


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/etc/passwd", "", "a\0b", "..", "link", "deep/link"]
)
def test_no_name_leads_out_of_the_folder(name: str, empty_place: Path, folder: Path, reader: SecretReader) -> None:
    """Neither by path nor by a link."""
    (empty_place / "outside").write_text("hunter2")
    (folder / "deep").mkdir()
    (folder / "link").symlink_to(empty_place / "outside")
    (folder / "deep" / "link").symlink_to("../../outside")
    with pytest.raises(SecretUnavailable) as caught:
        reader.file(name)
    assert "hunter2" not in str(caught.value)


def test_what_is_no_readable_file_is_refused(folder: Path, reader: SecretReader) -> None:
    """A folder, a pipe, a loop of links, an empty and an oversized file each end in a text, and none hangs."""
    (folder / "dir").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "empty").write_text("\n")
    (folder / "large").write_bytes(b"x" * 65537)
    for name in ("dir", "pipe", "loop", "empty", "large", "missing", "x" * 5000):
        with pytest.raises(SecretUnavailable):
            reader.file(name)


def test_without_a_folder_no_file_is_read() -> None:
    """The text names the setting that is missing."""
    with pytest.raises(SecretUnavailable, match="LLM_GATEWAY_SECRETS_DIR"):
        SecretReader(Settings.load()).file("key")
