"""How a setting is declared: types that read their text form, and fields with unit, bounds and description."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gateway.model import IPNetwork
from gateway.settings import units

Duration = Annotated[float, BeforeValidator(units.parse_duration)]
Size = Annotated[int, BeforeValidator(units.parse_size)]
TextList = Annotated[tuple[str, ...], BeforeValidator(units.split_list)]
Networks = Annotated[
    tuple[IPNetwork, ...], BeforeValidator(lambda value: units.parse_networks(units.split_list(value)))
]


def seconds(default: float, least: float, most: float, description: str) -> Any:
    """A duration in seconds."""
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": "seconds"})


def size(default: int, least: int, most: int, description: str) -> Any:
    """A size in bytes."""
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": "bytes"})


def count(default: int, least: int, most: int, unit: str, description: str) -> Any:
    """A whole number of ``unit``."""
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": unit})


def value(default: Any, expected: str, description: str, *, secret: bool = False) -> Any:
    """Anything else; ``expected`` says what, and a ``secret`` one is never shown."""
    extra: dict[str, Any] = {"expected": expected} | ({"secret": True} if secret else {})
    return Field(default, description=description, json_schema_extra=extra, repr=not secret)
