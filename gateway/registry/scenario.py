"""The document of kind Scenario: what a tenant asks for by name. See ``base`` for how these models behave."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from gateway.model import OUTPUT_LIMITS
from gateway.registry.base import (
    Document,
    FieldErrors,
    FreeText,
    Metadata,
    Name,
    NameOrAll,
    Node,
    PositiveDuration,
    repeated,
)

Fields = Annotated[dict[str, Any], Field(max_length=128)]


class Target(Node):
    """A backend with its share of the traffic."""

    backend: Name = Field(description="Name of the Backend.")
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=1, description="Its share among the weights of all targets; 0 gets no calls."
    )


class Parameters(Node):
    """Request fields that the scenario sets."""

    defaults: Fields = Field(
        default_factory=dict,
        description="Used where the request is silent. max_tokens or max_completion_tokens here also chooses the name"
        " under which an output limit is sent.",
    )
    overrides: Fields = Field(default_factory=dict, description="Always win.")
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None, description="The most output tokens that a call may ask for."
    )

    @model_validator(mode="after")
    def _not_governed(self) -> Self:
        errors = [
            (f"{part}.{name}", reason)
            for part, fields in (("defaults", self.defaults), ("overrides", self.overrides))
            for name in fields
            if (reason := _why_governed(part, name))
        ]
        limits = [name for name in OUTPUT_LIMITS if name in self.defaults]
        if len(limits) > 1:
            errors.append((f"defaults.{limits[1]}", f"says the same as {limits[0]}: only one can be sent"))
        errors += [
            (f"defaults.{name}", "must be an integer above zero")
            for name in limits
            if type(self.defaults[name]) is not int or self.defaults[name] < 1
        ]
        if errors:
            raise FieldErrors(*errors)
        return self


def _why_governed(part: str, name: str) -> str:
    folded = name.casefold()  # some servers read names in any case
    if folded in ("model", "messages", "stream", "stream_options", "prompt_variables"):
        return "is decided by the request and the gateway"
    if folded in OUTPUT_LIMITS and (part == "overrides" or folded != name):
        return "is governed by spec.parameters.maxOutputTokens"
    return "" if name and name.isprintable() and len(name) <= 128 else "is not a field name"


class Cache(Node):
    """Whether answers are kept."""

    mode: Literal["none", "exact"] = Field(
        default="none", description="none or exact (the same request). Accepted, not enforced by this version."
    )
    ttl: PositiveDuration | None = Field(
        default=None, description="How long an answer is kept. Default 10m. Accepted, not enforced by this version."
    )


class Access(Node):
    """Who may ask for the scenario."""

    tenants: Annotated[list[NameOrAll], Field(max_length=10_000)] = Field(
        default_factory=list, description='Tenant names, or "*" for all. Omitted: nobody.'
    )


class ScenarioSpec(Node):
    """What a tenant asks for by name (the field `model`)."""

    description: Annotated[str, StringConstraints(max_length=4096)] = Field(
        default="", description="What it is for, for the people who read the registry."
    )
    aliases: Annotated[list[FreeText], Field(max_length=64)] = Field(
        default_factory=list, description="Further names; unique among the scenarios that one tenant may use."
    )
    prompt: Name | None = Field(default=None, description="A Prompt, NAME.VERSION, that goes before the messages.")
    parameters: Parameters = Field(default_factory=Parameters, description="Request fields that it sets or bounds.")
    targets: Annotated[list[Target], Field(min_length=1, max_length=64)] = Field(
        description="Backends of which each call is given one, by weight."
    )
    fallbacks: Annotated[list[Name], Field(max_length=16)] = Field(
        default_factory=list, description="Backends in order, before the first byte only."
    )
    cache: Cache = Field(
        default_factory=Cache, description="Whether answers are kept. Accepted, not enforced by this version."
    )
    access: Access = Field(default_factory=Access, description="Which tenants it is offered to.")
    disabled: bool = Field(default=False, description="true: nobody can call it, as if it were not there.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [*repeated("aliases", self.aliases), *repeated("fallbacks", self.fallbacks)]
        backends = [target.backend for target in self.targets]
        errors += [(f"{field}.backend", reason) for field, reason in repeated("targets", backends)]
        if not any(target.weight for target in self.targets):
            errors.append(("targets", "must have a weight above zero"))
        if errors:
            raise FieldErrors(*errors)
        return self


class ScenarioDocument(Document):
    """What a tenant asks for by name."""

    kind: Literal["Scenario"] = Field(description="What the document describes.")
    metadata: Metadata = Field(description="Name of the scenario: what callers ask for in the field model.")
    spec: ScenarioSpec = Field(description="How a call is answered, and who may make it.")
