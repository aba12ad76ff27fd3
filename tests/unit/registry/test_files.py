"""The folder: what is a registry file, and what happens to what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.registry import files
from gateway.registry.files import list_folder
from tests.unit.registry.folders import Folder, backend


def names(folder: Folder) -> list[str]:
    """Return what a listing finds."""
    return [file.name for file in list_folder(folder.path).files]


def test_yaml_files_at_any_depth_in_path_order(folder: Folder) -> None:
    """.yaml and .yml files are the registry; other names and hidden entries are not."""
    for name in ("b.yaml", "a.yml", "x/y/z.yaml", "x/a.yaml", "README.md", "x.json", ".hidden.yaml", ".git/c.yaml"):
        folder.write(name, "# nothing")
    assert names(folder) == ["a.yml", "b.yaml", "x/a.yaml", "x/y/z.yaml"]


def test_a_config_map_mount(folder: Folder) -> None:
    """Links into ``..data`` are the files; the hidden folders behind them are not listed a second time."""
    (folder.path / "..2026_01").mkdir()
    folder.write("..2026_01/b.yaml", backend())
    folder.write("..2026_01/sub/c.yaml", backend("c"))
    (folder.path / "..data").symlink_to("..2026_01")
    (folder.path / "b.yaml").symlink_to("..data/b.yaml")
    (folder.path / "sub").symlink_to("..data/sub")
    assert names(folder) == ["b.yaml", "sub/c.yaml"]
    assert set(folder.good().backends) == {"qwen", "c"}


def test_a_missing_folder_is_a_problem_and_never_an_empty_registry(folder: Folder) -> None:
    """A folder that is gone keeps everything that it held."""
    folder.write("b.yaml", backend())
    first = folder.good()
    moved = folder.path.with_name("moved")
    folder.path.rename(moved)
    result = folder.load()
    assert [(problem.source, problem.reason) for problem in result.problems] == [
        (str(folder.path), "cannot be read: No such file or directory")
    ]
    assert result.snapshot.backends["qwen"] is first.backends["qwen"]
    assert result.snapshot.object_counts["Backend", "stale"] == 1
    moved.rename(folder.path)
    assert folder.good().backends["qwen"] is first.backends["qwen"]


def test_a_file_in_place_of_the_folder_is_a_problem(tmp_path: Path) -> None:
    """The registry must be a folder."""
    (tmp_path / "registry").write_text("x")
    assert Folder(tmp_path / "registry").problem().reason == "cannot be read: Not a directory"


def test_a_subfolder_that_cannot_be_listed_keeps_what_it_held(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is known to be gone goes: a forbidden subfolder is a problem of its own."""
    folder.write("teams/a/b.yaml", backend("deep"))
    folder.write("b.yaml", backend())
    folder.write("gone.yaml", backend("gone"))
    folder.good()
    folder.remove("gone.yaml")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "teams":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = folder.load()
    assert [(folder.below(problem), problem.reason) for problem in result.problems] == [
        ("teams", "cannot be read: Permission denied")
    ]
    assert set(result.snapshot.backends) == {"deep", "qwen"}
    monkeypatch.undo()
    assert set(folder.good().backends) == {"deep", "qwen"}


def test_a_dangling_link_keeps_what_the_file_held(folder: Folder) -> None:
    """A mount between two states is no deletion."""
    target = folder.write("..data/b.yaml", backend())
    (folder.path / "b.yaml").symlink_to("..data/b.yaml")
    folder.good()
    target.unlink()
    result = folder.load()
    assert [(folder.below(problem), problem.reason) for problem in result.problems] == [
        ("b.yaml", "cannot be read: No such file or directory")
    ]
    assert "qwen" in result.snapshot.backends


def test_what_is_no_regular_file_is_refused_without_opening_it(folder: Folder) -> None:
    """A FIFO would hang a reader."""
    os.mkfifo(folder.path / "b.yaml")
    assert folder.problem().reason == "is not a regular file"


def test_a_folder_that_leads_back_to_itself(folder: Folder) -> None:
    """A loop of links is a problem and ends."""
    folder.write("a/b.yaml", backend())
    (folder.path / "a" / "again").symlink_to("..")
    problem = folder.problem()
    assert (folder.below(problem), problem.reason) == ("a/again", "leads back to itself or is nested too deep")


@pytest.mark.parametrize("name", [b"a\nb.yaml", b"\xff.yaml"])
def test_a_name_that_cannot_be_shown_is_refused(folder: Folder, name: bytes) -> None:
    """A file name must be fit for a log line."""
    Path(os.fsdecode(os.fsencode(folder.path) + b"/" + name)).write_text("# nothing")
    Path(os.fsdecode(os.fsencode(folder.path) + b"/" + name.removesuffix(b".yaml"))).mkdir()
    problems = folder.load().problems
    assert {problem.reason for problem in problems} == {"has a name with characters that cannot be shown"}
    assert len(problems) == 2
    assert all(problem.source.isprintable() for problem in problems)


def test_bounds(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large a file is refused; too many files or bytes keep the registry as it was."""
    folder.write("b.yaml", backend())
    folder.good()
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    assert folder.problem().reason == "is larger than 10 bytes"
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_TOTAL_BYTES", 10)
    result = folder.load()
    assert [problem.reason for problem in result.problems] == ["more than 10 bytes in all"]
    assert "qwen" in result.snapshot.backends
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_FILES", 1)
    folder.write("c.yaml", backend("c"))
    result = folder.load()
    assert [problem.reason for problem in result.problems] == ["more than 1 files"]
    assert set(result.snapshot.backends) == {"qwen"}
    monkeypatch.undo()
    assert set(folder.good().backends) == {"qwen", "c"}


def test_a_file_that_grew_after_the_listing_is_bounded_too(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds for what is read, not only for what was listed."""
    path = folder.write("b.yaml", backend())
    monkeypatch.setattr(files, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(files.UnreadableFile, match="is larger than"):
        files.read_file(folder.path, "b.yaml")


def test_a_file_at_rest_is_not_read_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old files with the marks of the last load are taken as they were; fresh ones are read again."""
    folder.now = (folder.path.stat().st_ctime) + 1_000.0
    folder.write("b.yaml", backend())
    first = folder.good()
    monkeypatch.setattr("gateway.registry.claims.read_file", lambda *_: pytest.fail("was read"))
    assert folder.good() is first


def test_a_change_within_one_tick_of_the_clock_is_seen(folder: Folder) -> None:
    """A file that was written just now is compared by content, since its marks may be those of the write before."""
    path = folder.write("b.yaml", backend(model="one"))
    folder.now = path.stat().st_ctime - 10
    folder.good()
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"two"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert folder.good().backends["qwen"].model == "two"
