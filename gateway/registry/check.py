"""Checks one document on its own, and finds as many of its errors as can be told apart. Pure.

A model that has a wrong field skips the checks that look at several fields. So that a person who mends a file sees
everything at once, what is wrong is taken out and the rest checked again; an error that this taking out may itself
have caused is not reported. For the same reason the references of a wrong document are read from its plain values.
No reason repeats the input.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.registry.documents import FieldErrors, Kind

_ROUNDS_MAX = 8
_FOUND_MAX = 1000  # with more to mend than that, what is behind it can wait

Model = TypeVar("Model", bound=BaseModel)


class _Found(NamedTuple):
    place: tuple[int | str, ...]
    field: str
    reason: str


class Reference(NamedTuple):
    """An object that a document names."""

    field: str
    kind: Kind
    name: str


def validate(model: type[Model], value: dict[str, Any]) -> tuple[Model | None, list[tuple[str, str]]]:
    """Return the document, or None and (field, reason) of everything that is wrong with it."""
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        found = list(_found(error))
    return None, list(dict.fromkeys((item.field, item.reason) for item in (*found, *_hidden(model, value, found))))


def _hidden(model: type[BaseModel], value: dict[str, Any], found: list[_Found]) -> Iterator[_Found]:
    """Yield the errors behind those that were found."""
    rest, known = copy.deepcopy(value), {item.field for item in found}
    shorter: set[str] = set()  # lists, which are numbered anew
    for _ in range(_ROUNDS_MAX):
        if len(known) > _FOUND_MAX:
            return
        # From the end, so that places stay what they are; what is missing now is taken out with what needs it.
        taken = [_take_out(rest, item.place) or _take_out(rest, item.place[:-1]) for item in reversed(found)]
        shorter |= {_path(place[:-1]) + "[" for place in taken if place and isinstance(place[-1], int)}
        if not any(taken):
            return
        try:
            model.model_validate(rest)
        except ValidationError as error:
            found = list(_found(error))
        else:
            return
        fresh = [item for item in found if not _caused(item.field, known, shorter)]
        yield from fresh
        known |= {item.field for item in fresh}


def _caused(field: str, known: set[str], shorter: set[str]) -> bool:
    """Tell whether the field is one that was wrong before, one around it, or of a list that is numbered anew."""
    around = any(other == field or other.startswith((f"{field}.", f"{field}[")) for other in known)
    return not field or around or any(field.startswith(name) for name in shorter)


def _take_out(value: Any, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Remove what is at this place; return the place, or () where nothing is there."""
    try:
        *way, last = [part for part in place if part != "[key]"]
        for part in way:
            value = value[_key(value, part)]
        del value[_key(value, last)]
    except (LookupError, TypeError, ValueError):  # a field that is missing, or a rule of the whole
        return ()
    return (*way, last)


def _key(node: Any, part: int | str) -> int | str:
    """Return the key of a mapping as it is written: names of headers are told in lower case."""
    if isinstance(node, dict) and part not in node:
        return next((key for key in node if str(key).lower() == str(part).lower()), part)
    return part


def references(kind: Kind, spec: object) -> Iterator[Reference]:
    """Yield what a document that may be wrong refers to, as far as it can be read."""
    match kind:
        case "Scenario":
            yield from _parts_of("spec", spec)
            for variant in ("canary", "shadow"):
                yield from _parts_of(f"spec.{variant}.override", _get(_get(spec, variant), "override"))
            for index, name in enumerate(_items(_get(spec, "access"), "tenants")):
                yield from _named(f"spec.access.tenants[{index}]", "Tenant", name)
        case "Tenant" | "ApiKey":
            yield from _named("spec.tenant", "Tenant", _get(spec, "tenant") if kind == "ApiKey" else None)
            yield from _listed(spec, "scenarios", "Scenario")
            for index, limit in enumerate(_items(spec, "limits")):
                yield from _named(f"spec.limits[{index}].scenario", "Scenario", _get(limit, "scenario"))
        case _:
            pass


def _parts_of(field: str, parts: object) -> Iterator[Reference]:
    """Yield what the parts of a scenario refer to that an override may replace."""
    for index, target in enumerate(_items(parts, "targets")):
        yield from _named(f"{field}.targets[{index}].backend", "Backend", _get(target, "backend"))
    for index, name in enumerate(_items(parts, "fallbacks")):
        yield from _named(f"{field}.fallbacks[{index}]", "Backend", name)
    yield from _named(f"{field}.prompt", "Prompt", _get(parts, "prompt"))


def _get(node: object, key: str) -> object:
    return node.get(key) if isinstance(node, dict) else None


def _items(node: object, key: str) -> list[object]:
    items = _get(node, key)
    return items if isinstance(items, list) else []


def _listed(spec: object, key: str, kind: Kind) -> Iterator[Reference]:
    for index, name in enumerate(_items(spec, key)):
        yield from _named(f"spec.{key}[{index}]", kind, name)


def _named(field: str, kind: Kind, name: object) -> Iterator[Reference]:
    if isinstance(name, str) and name != "*":
        yield Reference(field, kind, name)


def _found(error: ValidationError) -> Iterator[_Found]:
    for item in error.errors(include_url=False, include_input=False):
        field = _path(item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, FieldErrors):
            for below, reason in cause.errors:
                place = (*item["loc"], *_parts(below))
                yield _Found(place, ".".join(part for part in (field, below) if part), reason)
        else:
            yield _Found(item["loc"], field, _reason(item["type"], item.get("ctx", {}), item["msg"]))


def _parts(field: str) -> Iterator[int | str]:
    """Take a path that a model's own check named apart; the key of a header may hold dots and stays whole."""
    head, dot, key = field.partition(".")
    if head == "headers" and dot:
        yield from (head, key)
        return
    for name, index in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", field):
        yield name or int(index)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part[:64]}" if path else part[:64]
    return path


_REASONS = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}


def _reason(kind: str, context: dict[str, Any], message: str) -> str:
    if kind in _REASONS:
        return _REASONS[kind]
    if kind in ("too_short", "too_long"):
        bound, count = ("least", context["min_length"]) if kind == "too_short" else ("most", context["max_length"])
        return f"must have at {bound} {count} item{'' if count == 1 else 's'}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "value_error":
        return str(context["error"])
    return message.replace("Input should", "must", 1).replace("String should", "must", 1).replace("should", "must", 1)
