"""A setting that holds a credential and comes from a file: read again when the file changes.

Kubernetes replaces a mounted Secret by swapping links, so the file is looked at by its path at every use. Invariant:
what was good stays in use while the file is away or holds something else than the setting may be.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.settings.sources import environment_name, read_secret_file, read_variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.settings.schema import Settings


class RotatedSecret:
    """The value of a setting now. ``path`` is None for one that was given directly, which never changes."""

    def __init__(self, value: str | None, path: Path | None, accepted: Callable[[str], bool]) -> None:
        self._value = value
        self._path = path
        self._accepted = accepted
        self._marks = _marks(path)

    def __call__(self) -> str | None:
        """Return the value; looks at the file, and reads it where it is another one than before."""
        marks = _marks(self._path)
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


def _marks(path: Path | None) -> tuple[int, ...] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def rotated_secret(settings: Settings, field: str, accepted: Callable[[str], bool]) -> RotatedSecret:
    """A setting that may change with its file; ``accepted`` says which new values are good enough to use."""
    value: str | None = getattr(settings, field)
    return RotatedSecret(value, _file_of(settings, field, value), accepted)


def _file_of(settings: Settings, field: str, value: str | None) -> Path | None:
    """The file that the value came from; None where it came from elsewhere, an option of the command line included."""
    name = environment_name(field)
    for source in read_variables(Path(), settings.environment):
        if path := source.values.get(name + "_FILE"):
            try:
                return Path(path) if read_secret_file(Path(path)).decode() == value else None
            except (OSError, ValueError):
                return None
        if name in source.values:
            return None
    return None
