"""Reads the secrets that backends refer to: variables with a fixed prefix, and files below one folder.

Invariant: nothing but names with the prefix ``LLM_GATEWAY_SECRET_`` and files inside the secrets folder can be read,
so a registry document cannot send another part of the environment or of the disk to a backend. No error text holds a
secret. Kubernetes mounts a Secret as links through ``..data`` inside the folder; those are followed, others are not.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gateway.settings.sources import SECRET_PREFIX, read_secret_file, read_variables, without_newline

if TYPE_CHECKING:
    from gateway.settings.schema import Settings

_ENVIRONMENT_NAME = re.compile(SECRET_PREFIX + r"[A-Z0-9_]+")


class SecretUnavailable(Exception):
    """A secret that cannot be had; the text says which and why, never what it holds."""


class SecretReader:
    """Gives the bytes of a secret by its name.

    Variables are read once, when the reader is made: the process environment first, then ``.env.<environment>`` and
    ``.env``. Files are read on every call, so that a rotated secret is seen.
    """

    in_cluster = False

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.secrets_dir
        self._variables = {
            name: value
            for source in reversed(read_variables(Path(), settings.environment))
            for name, value in source.values.items()
            if name.startswith(SECRET_PREFIX)
        }

    def env(self, name: str) -> bytes:
        """The value of a variable ``LLM_GATEWAY_SECRET_[A-Z0-9_]+`` without one newline at its end.

        Raises ``SecretUnavailable`` when the name is another, or the variable is not set or empty.
        """
        if _ENVIRONMENT_NAME.fullmatch(name) is None:
            raise SecretUnavailable(f"the name of the variable must match {SECRET_PREFIX}[A-Z0-9_]+")
        value = self._variables.get(name)
        if value is None:
            raise SecretUnavailable(f"the environment variable {name} is not set")
        try:
            return without_newline(value.encode("utf-8", "surrogateescape"))
        except ValueError as error:
            raise SecretUnavailable(f"the environment variable {name} {error}") from None

    def file(self, name: str) -> bytes:
        """The content of a file below the secrets folder without one newline at its end; at most 64 KiB.

        Raises ``SecretUnavailable`` when there is no folder, the name leads out of it, or the file cannot be read.
        """
        path = self._locate(name)
        try:
            return read_secret_file(path)
        except ValueError as error:
            raise SecretUnavailable(f"the secret file {name} {error}") from None
        except OSError as error:
            raise SecretUnavailable(f"the secret file {name} cannot be read: {error.strerror}") from None

    def ref(self, name: str, key: str) -> bytes:  # noqa: ARG002  # whatever the name
        """Refuse: a Secret of the cluster is read by a registry in the cluster alone."""
        raise SecretUnavailable("is read from the Kubernetes API only; in a folder use env or file")

    def _locate(self, name: str) -> Path:
        if self._folder is None:
            raise SecretUnavailable(f"the secret file {name} needs the setting LLM_GATEWAY_SECRETS_DIR")
        relative = PurePosixPath(name)
        if not name or "\0" in name or relative.is_absolute() or ".." in relative.parts:
            raise SecretUnavailable(f"the secret file {name!r} must be a path below the secrets folder")
        try:
            folder, path = self._folder.resolve(), (self._folder / relative).resolve()
        except (OSError, RuntimeError):  # RuntimeError: Python 3.11 and 3.12 on a loop of links
            raise SecretUnavailable(f"the secret file {name} cannot be resolved") from None
        if not path.is_relative_to(folder):
            raise SecretUnavailable(f"the secret file {name} is a link that leads out of the secrets folder")
        return path
