"""Where values of settings come from: the process environment, ``.env`` files, and the files that hold secrets.

Invariant: this is the only module of the project that reads the environment. Values stay text here; ``schema`` gives
them types. A value that is an empty string counts as not set, as it does in most deployment tools. Nothing here
substitutes variables inside values, so a secret may contain ``$``.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dotenv.parser import parse_stream
from pydantic_settings import PydanticBaseSettingsSource

from gateway.errors import SettingsInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

PREFIX = "LLM_GATEWAY_"
SECRET_PREFIX = "LLM_GATEWAY_SECRET_"  # noqa: S105  # the prefix of names, not a secret
CALLERS_KEY = "LLM_GATEWAY_KEY"
"""What the documents call the key of whoever calls a gateway: often set in the shell that also starts one."""
SECRET_FILE_BYTES_MAX = 65536
"""The most that a file with a secret may hold; a larger one is not a secret but a mistake."""

_INJECTED_BY_KUBERNETES = re.compile(
    r"LLM_GATEWAY_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


class Variables(NamedTuple):
    """The variables of one source. ``origin`` says where they are, in words for an error text."""

    origin: str
    values: Mapping[str, str]


def environment_name(field: str) -> str:
    """The environment variable of a field of the settings."""
    return PREFIX + field.upper()


def option_name(field: str) -> str:
    """The option of ``llm-gateway serve`` of a field of the settings."""
    return "--" + field.replace("_", "-")


def read_variables(folder: Path, environment: str | None) -> tuple[Variables, ...]:
    """Every source that exists, the strongest first: process environment, ``.env.<environment>``, ``.env``.

    ``environment`` is what the command line says; where it is None the sources themselves are asked. Raises
    ``SettingsInvalid`` for a file that cannot be read.
    """
    process = Variables("environment", {name: value for name, value in os.environ.items() if value})
    general = _read_env_file(folder / ".env")
    name = environment_name("environment")
    chosen = environment or process.values.get(name) or general.values.get(name) or "development"
    if not chosen.isalpha():  # a wrong value is refused by its own field; here it must not become a path
        return process, general
    return process, _read_env_file(folder / f".env.{chosen}"), general


def _read_env_file(path: Path) -> Variables:
    values: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Variables(path.name, values)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: cannot be read: {type(error).__name__}") from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise SettingsInvalid(f"{path}: line {binding.original.line}: expected NAME=value")
        if binding.key and binding.value:
            values[binding.key] = binding.value
    return Variables(path.name, values)


def process_environment(fields: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with other values for these fields; none of them is read from a file then."""
    replaced = {environment_name(field) + "_FILE" for field in fields}
    kept = {name: value for name, value in os.environ.items() if name not in replaced}
    return kept | {environment_name(field): value for field, value in fields.items()}


def kubernetes_service() -> tuple[str, str] | None:
    """Host and port of the API server as Kubernetes tells every pod; None outside of one."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    return (host, port) if host and port else None


def variables_of(prefix: str) -> dict[str, str]:
    """Those of the process environment that others give it, by how their names begin."""
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


def unknown_names(sources: Iterable[Variables], fields: Mapping[str, FieldInfo]) -> tuple[str, ...]:
    """Names with the gateway's prefix that are no setting, no backend's secret and none of Kubernetes' own, sorted."""
    known = {environment_name(field) for field in fields}
    known.update(environment_name(field) + "_FILE" for field, info in fields.items() if is_secret(info))
    names = {name for source in sources for name in source.values if name.startswith(PREFIX)}
    return tuple(sorted(name for name in names - known if not _belongs_to_others(name)))


def _belongs_to_others(name: str) -> bool:
    return name == CALLERS_KEY or name.startswith(SECRET_PREFIX) or _INJECTED_BY_KUBERNETES.fullmatch(name) is not None


def is_secret(info: FieldInfo) -> bool:
    """Whether the value may hold a credential: never shown, and readable from a file."""
    return bool(extra_of(info).get("secret"))


def extra_of(info: FieldInfo) -> Mapping[str, Any]:
    """What the schema says about a field beyond its type: ``unit``, ``expected``, ``secret``."""
    return cast("Mapping[str, Any]", info.json_schema_extra or {})


def read_secret_file(path: Path) -> bytes:
    """The content of a regular file of at most ``SECRET_FILE_BYTES_MAX`` bytes, without one newline at its end.

    Raises ``OSError`` where it cannot be read and ``ValueError`` where it is no such file or is empty.
    """
    if not path.is_file():  # a pipe or a device would block or never end
        raise ValueError("is not a file" if path.exists() else "does not exist")
    with path.open("rb") as file:
        content = file.read(SECRET_FILE_BYTES_MAX + 1)
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise ValueError(f"is larger than {SECRET_FILE_BYTES_MAX} bytes")
    return without_newline(content)


def without_newline(content: bytes) -> bytes:
    """The content without one line end; editors and ``echo`` add it. Raises ``ValueError`` when nothing is left."""
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not content:
        raise ValueError("is empty")
    return content


def secret_files(sources: Iterable[Variables], fields: Mapping[str, FieldInfo]) -> dict[str, Path]:
    """The files that secrets are read from, by field: the strongest source of each counts."""
    found: dict[str, Path | None] = {}
    for source in sources:
        for field in (name for name, info in fields.items() if is_secret(info)):
            name = environment_name(field)
            path = source.values.get(name + "_FILE")
            if path or name in source.values:
                found.setdefault(field, Path(path) if path else None)
    return {field: path for field, path in found.items() if path is not None}


class VariablesSource(PydanticBaseSettingsSource):
    """One source of variables, for pydantic-settings: text by field name, secrets read from their files."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Variables) -> None:
        super().__init__(settings_cls)
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of one field, or None; raises ``SettingsInvalid`` for a secret that cannot be read."""
        name = environment_name(field_name)
        direct = self._variables.values.get(name)
        path = self._variables.values.get(name + "_FILE") if is_secret(field) else None
        if path is None:
            return direct, field_name, False
        if direct is not None:
            raise SettingsInvalid(f"{name}: expected either {name} or {name}_FILE, got both")
        try:
            return read_secret_file(Path(path)).decode(), field_name, False
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            if isinstance(error, UnicodeDecodeError):
                reason = "is not UTF-8 text"  # the error itself would show the content
            raise SettingsInvalid(f"{name}_FILE: expected a readable file with the value: {path}: {reason}") from None

    def __call__(self) -> dict[str, Any]:
        """Every field that this source sets."""
        values = {name: self.get_field_value(info, name)[0] for name, info in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}
