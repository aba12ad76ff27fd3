"""A setting that holds a credential and comes from a file: read again when the file changes.

Kubernetes replaces a mounted Secret by swapping links, so the file is looked at by its path at every use. Invariants:
what was good stays in use while the file is away or holds something else than the setting may be; a process that begins
long after the settings were read (a worker in the place of one that died) goes by what the file holds now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.settings.sources import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.settings.schema import Settings


class RotatedSecret:
    """The value of a setting now. ``path`` is None for one that was given directly, which never changes.

    ``value`` is what the file held once; how long ago is not known, so that the first use reads it.
    """

    def __init__(self, value: str | None, path: Path | None, accepted: Callable[[str], bool]) -> None:
        self._value = value
        self._path = path
        self._accepted = accepted
        self._marks: tuple[int, ...] | None = None

    def __call__(self) -> str | None:
        """Return the value; looks at the file, and reads it where it is another one than before."""
        marks = marks_of(self._path)
        if self._path is not None and marks is not None and marks != self._marks:
            self._marks = marks
            self._value = self._read(self._path) or self._value
        return self._value

    def _read(self, path: Path) -> str | None:
        try:
            text = read_secret_file(path).decode()
        except (OSError, ValueError):
            return None
        return text if self._accepted(text) else None


def marks_of(path: Path | None) -> tuple[int, ...] | None:
    """What is another one when the file is another one; None where there is none to be seen."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def rotated_secret(settings: Settings, field: str, accepted: Callable[[str], bool]) -> RotatedSecret:
    """A setting that may change with its file; ``accepted`` says which new values are good enough to use."""
    value: str | None = getattr(settings, field)
    return RotatedSecret(value, settings.file_of(field), accepted)
