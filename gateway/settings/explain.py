"""Says in words what a setting expects, for the table of settings and for the text of a wrong value.

Invariant: the value of a secret is never part of a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from gateway.settings.sources import environment_name, extra_of, is_secret, option_name
from gateway.settings.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_SHOWN_CHARACTERS_MAX = 100


def bounds(info: FieldInfo) -> tuple[float, float] | None:
    """The least and the most of a number, in the setting's unit; None for everything that is no number."""
    found = {name: getattr(part, name) for part in info.metadata for name in ("ge", "le") if hasattr(part, name)}
    return (found["ge"], found["le"]) if len(found) == 2 else None


def expected(info: FieldInfo) -> str:
    """What may be written, as the object of "expected"."""
    extra, limits = extra_of(info), bounds(info)
    if limits is None:
        return str(extra.get("expected") or _expected_choice(info.annotation))
    least, most = limits
    if extra["unit"] == "seconds":
        return f"a duration from {format_duration(least)} to {format_duration(most)}, such as 500ms, 30s, 10m or 1h"
    if extra["unit"] == "bytes":
        return f"a size from {format_size(int(least))} to {format_size(int(most))}, such as 64KiB or 20MiB"
    return f"a whole number from {least} to {most}"


def _expected_choice(annotation: Any) -> str:
    return "true or false" if annotation is bool else "one of " + ", ".join(get_args(annotation))


def accepted_text(info: FieldInfo) -> str:
    """What may be written, short, for a table."""
    limits, unit = bounds(info), extra_of(info).get("unit")
    if limits is None:
        return expected(info)
    return " to ".join(_format(limit, unit) for limit in limits)


def default_text(info: FieldInfo) -> str:
    """The default as one would write it; nothing where there is none."""
    value = info.default
    if value is None or value == ():
        return ""
    return str(value).lower() if isinstance(value, bool) else _format(value, extra_of(info).get("unit"))


def _format(value: Any, unit: str | None) -> str:
    if unit == "seconds":
        return format_duration(value)
    return format_size(int(value)) if unit == "bytes" else str(value)


def explain(error: ValidationError, fields: Mapping[str, FieldInfo], options: Container[str]) -> str:
    """One line per wrong setting: its name, what was expected and, unless it is secret, what was found.

    ``options`` are the fields that were given as options of the command line rather than as variables.
    """
    return "\n".join(dict.fromkeys(_explain_one(item, fields, options) for item in error.errors(include_url=False)))


def _explain_one(item: ErrorDetails, fields: Mapping[str, FieldInfo], options: Container[str]) -> str:
    field = str(item["loc"][0]) if item["loc"] else ""
    if not field:  # a rule over several settings names them itself
        return str(item["ctx"]["error"])
    if field not in fields:
        return f"{field}: there is no such setting"
    info = fields[field]
    name = f"{environment_name(field)} ({option_name(field)})" if field in options else environment_name(field)
    return f"{name}: expected {expected(info)}" + ("" if is_secret(info) else f", got {_found(item['input'], info)!r}")


def _found(value: Any, info: FieldInfo) -> str:
    number = isinstance(value, int | float)  # it was understood, and is beyond the bounds
    return _shorten(_format(value, extra_of(info).get("unit")) if number else str(value))


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."
