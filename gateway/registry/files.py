"""The registry's folder: which files there are, what they hold, and whether anything changed.

Works with plain folders and with ConfigMap mounts, where every visible entry is a symlink into ``..data``: links are
followed, entries whose name starts with a dot are skipped. Bounded in files, bytes and depth. What cannot be read is
reported, never left out in silence: a failed listing must not look like an empty registry.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.model import Frozen

MAX_FILES = 10_000
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_FOLDER_DEPTH = 16
RACY_S = 2.0
SUFFIXES = (".yaml", ".yml")


class FolderFile(Frozen, frozen=True):
    """One file: its path below the folder with ``/`` between, and the marks by which a change is seen."""

    name: str
    marks: tuple[int, ...] = ()  # device, inode, mtime and ctime in ns, size
    error: str = ""  # why it cannot be read

    @property
    def size(self) -> int:
        """Bytes, as of the listing."""
        return self.marks[-1] if self.marks else 0

    def at_rest(self, now: float) -> bool:
        """Tell whether the file was left alone long enough before ``now`` (Unix seconds) for its marks to tell.

        A file that is written twice within one tick of the file system's clock can keep its marks.
        """
        return bool(self.marks) and not self.error and max(self.marks[2:4]) / 1e9 < now - RACY_S


class Unlisted(Frozen, frozen=True):
    """A folder that could not be listed (``""`` is the registry itself) and why."""

    name: str
    reason: str


class Listing(Frozen, frozen=True):
    """Everything found in a folder, in path order; two equal listings mean that nothing changed."""

    files: tuple[FolderFile, ...]
    unlisted: tuple[Unlisted, ...]

    def lost(self, name: str) -> bool:
        """Tell whether a file may still be there, in a folder that could not be listed."""
        return any(not folder.name or name.startswith(folder.name + "/") for folder in self.unlisted)


class UnreadableFile(Exception):
    """The file is there and its content cannot be had; the text says why."""


def list_folder(folder: Path) -> Listing:
    """List every registry file below the folder; never raises for what it finds there."""
    walk = _Walk()
    walk.enter(folder, "", ())
    if len(walk.files) > MAX_FILES:
        return Listing(files=(), unlisted=(Unlisted(name="", reason=f"more than {MAX_FILES} files"),))
    if sum(file.size for file in walk.files) > MAX_TOTAL_BYTES:
        return Listing(files=(), unlisted=(Unlisted(name="", reason=f"more than {MAX_TOTAL_BYTES} bytes in all"),))
    files = sorted(walk.files, key=lambda file: file.name)
    return Listing(files=tuple(files), unlisted=tuple(walk.unlisted))


def read_file(folder: Path, name: str) -> bytes:
    """Return a file's content; raises UnreadableFile for anything but a regular file within the bound."""
    try:
        # O_NONBLOCK: opening a FIFO that took the file's place must not hang.
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableFile("is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(_reason(error)) from None
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableFile(f"is larger than {MAX_FILE_BYTES} bytes")
    return content


class _Walk:
    def __init__(self) -> None:
        self.files: list[FolderFile] = []
        self.unlisted: list[Unlisted] = []

    def enter(self, path: Path, name: str, above: tuple[tuple[int, int], ...]) -> None:
        """List one folder; ``above`` are the device and inode of the folders that lead to it."""
        try:
            found = path.stat()
            here = (found.st_dev, found.st_ino)
            if here in above or len(above) > MAX_FOLDER_DEPTH:
                self.unlisted.append(Unlisted(name=name, reason="leads back to itself or is nested too deep"))
                return
            with os.scandir(path) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            self.unlisted.append(Unlisted(name=name, reason=_reason(error)))
            return
        for entry in visible:
            if len(self.files) > MAX_FILES:
                return
            shown = _shown(entry.name)
            below = f"{name}/{shown}" if name else shown
            if shown != entry.name:
                self._refuse_name(entry, below)
            elif _is_folder(entry):
                self.enter(Path(entry.path), below, (*above, here))
            elif entry.name.endswith(SUFFIXES):
                self.files.append(_file(entry, below))

    def _refuse_name(self, entry: os.DirEntry[str], name: str) -> None:
        reason = "has a name with characters that cannot be shown"
        if _is_folder(entry):
            self.unlisted.append(Unlisted(name=name, reason=reason))
        elif entry.name.endswith(SUFFIXES):
            self.files.append(FolderFile(name=name, error=reason))


def _shown(name: str) -> str:
    """Return a name as it may stand in a log: itself, or with escapes where it is not UTF-8 or not printable."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file(entry: os.DirEntry[str], name: str) -> FolderFile:
    try:
        found = entry.stat()
    except OSError as error:
        return FolderFile(name=name, error=_reason(error))
    marks = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
    if not stat.S_ISREG(found.st_mode):
        return FolderFile(name=name, marks=marks, error="is not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        return FolderFile(name=name, error=f"is larger than {MAX_FILE_BYTES} bytes")
    return FolderFile(name=name, marks=marks)


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or type(error).__name__}"
