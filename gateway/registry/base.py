"""What the documents of the registry are made of: their common base, and the scalar types of their fields.

The models are strict and closed: an unknown key, a wrong JSON type or a null is an error that names the field. What a
document refers to is checked later, in ``compile``. The models are also the source of the JSON Schemas and of
docs/registry.md, so every field has its description. Reasons never repeat a value that might be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from gateway.model import IPNetwork
from gateway.registry import template, values

API_VERSION = "llmgateway.dev/v1alpha1"

Kind = Literal["Backend", "Scenario", "Prompt", "Tenant", "ApiKey"]


class FieldErrors(ValueError):
    """Reasons by field, the fields relative to the model that raises; an empty field is the model itself."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(reason for _, reason in errors))
        self.errors = errors


def text_type(pattern: str, **extra: object) -> WithJsonSchema:
    """Return the JSON Schema of a string with this pattern."""
    return WithJsonSchema({"type": "string", "pattern": pattern, **extra})


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


def _expected_sha256(value: str) -> str:
    if not re.fullmatch(values.SHA256_PATTERN[1:-1], value):
        raise ValueError("must be the 64 hexadecimal digits of a SHA-256")
    return value.lower()


def _variable(value: str) -> str:
    if not re.fullmatch(template.VARIABLE_PATTERN[1:-1], value):
        raise ValueError("must be a variable name: letters, digits and _, not starting with a digit, at most 64")
    return value


def _name_or_all(value: str) -> str:
    return value if value == "*" else values.subdomain(value)


Duration = Annotated[float, BeforeValidator(values.duration_s), text_type(values.DURATION_PATTERN)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive), text_type(values.DURATION_PATTERN)]
Money = Annotated[int, BeforeValidator(values.nano_usd), text_type(values.MONEY_PATTERN)]
Name = Annotated[str, AfterValidator(values.subdomain), text_type(values.SUBDOMAIN_PATTERN, maxLength=253)]
Label = Annotated[str, AfterValidator(values.label), text_type(values.LABEL_PATTERN)]
NameOrAll = Annotated[
    str,
    AfterValidator(_name_or_all),
    WithJsonSchema({"anyOf": [{"const": "*"}, {"type": "string", "pattern": values.SUBDOMAIN_PATTERN}]}),
]
FreeText = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(values.free_text)]
HeaderName = Annotated[str, AfterValidator(values.header_name), text_type(values.HEADER_NAME_PATTERN)]
HeaderValue = Annotated[str, AfterValidator(values.header_value), text_type(values.HEADER_VALUE_PATTERN)]
Time = Annotated[float, BeforeValidator(values.unix_s), WithJsonSchema({"type": "string", "format": "date-time"})]
Network = Annotated[
    IPNetwork, PlainValidator(values.network), WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8"]})
]
Sha256 = Annotated[str, AfterValidator(_expected_sha256), text_type(values.SHA256_PATTERN)]
Variable = Annotated[str, AfterValidator(_variable), text_type(template.VARIABLE_PATTERN)]
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]


class Node(BaseModel):
    """Base of every mapping in a document."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_nulls(cls, data: object) -> object:
        if isinstance(data, dict):
            nulls = [(str(key), "has no value; leave the key out") for key, value in data.items() if value is None]
            if nulls:
                raise FieldErrors(*nulls)
        return data


class Metadata(Node):
    """Kubernetes object metadata, the part that means something in a file."""

    name: Name = Field(description="Name of the object, unique among those of its kind.")
    namespace: Label | None = Field(default=None, description="Read by Kubernetes only.")
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="For people and tools; without effect."
    )
    annotations: dict[LabelKey, str] = Field(default_factory=dict, description="For people and tools; without effect.")


class TenantMetadata(Metadata):
    """Metadata of a tenant, whose name is one DNS label."""

    name: Label = Field(description="Name of the tenant, in logs and metrics too; one DNS label.")


class Document(Node):
    """What every document has."""

    api_version: Literal["llmgateway.dev/v1alpha1"] = Field(description="Version of this format.")


def repeated(field: str, items: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (field, reason) for every item that came before."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item in seen:
            yield f"{field}[{index}]", f"`{item}` is listed twice"
        seen.add(item)
