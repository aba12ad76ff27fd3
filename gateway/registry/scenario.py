"""The document of kind Scenario: what a tenant asks for by name. See ``base`` for how these models behave."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from gateway.dialects.openai.sampling import fault_of
from gateway.dialects.openai.structured import SCHEMA_BYTES_MAX, compile_schema
from gateway.model import OUTPUT_LIMITS, PromptPlacement
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

_OF_EVERY_REQUEST = ("model", "messages", "prompt_variables", "variables", "input")


def is_field_name(name: str) -> bool:
    """Tell whether a request could have a field of this name."""
    return bool(name) and name.isprintable() and len(name) <= 128


def _listed_field(name: str) -> str:
    if not is_field_name(name):
        raise ValueError("is not a field name")
    if name.casefold() in _OF_EVERY_REQUEST:
        raise ValueError("is what every request may have, and is never listed")
    return name


FieldName = Annotated[str, AfterValidator(_listed_field)]


class Target(Node):
    """A backend with its share of the traffic."""

    backend: Name = Field(description="Name of the Backend.")
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=1, description="Its share among the weights of all targets; 0 gets no calls."
    )


class Parameters(Node):
    """Request fields that the scenario sets, and those that it takes."""

    defaults: Fields = Field(
        default_factory=dict,
        description="Used where the request is silent. max_tokens or max_completion_tokens here also chooses the name"
        " under which an output limit is sent.",
    )
    overrides: Fields = Field(default_factory=dict, description="Always win.")
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None, description="The most output tokens that a call may ask for."
    )
    allow: Annotated[list[FieldName], Field(max_length=128)] | None = Field(
        default=None,
        description="Fields that a request may have; any other is refused. Always allowed: model, messages, stream,"
        " stream_options, max_tokens, max_completion_tokens and the variables of the prompt. Omitted: every field.",
    )
    deny: Annotated[list[FieldName], Field(max_length=128)] = Field(
        default_factory=list,
        description="Fields that a request must not have, in no spelling, such as tools, response_format, n, logprobs.",
    )
    check_sampling: bool = Field(
        default=False,
        description="true: types and ranges of a request's sampling fields are checked before a backend is asked.",
    )

    @model_validator(mode="after")
    def _not_governed(self) -> Self:
        errors = [
            (f"{part}.{name}", reason)
            for part, fields in (("defaults", self.defaults), ("overrides", self.overrides))
            for name, value in fields.items()
            if (reason := _why_governed(part, name) or _why_out_of_range(name, value))
        ]
        limits = [name for name in OUTPUT_LIMITS if name in self.defaults]
        if len(limits) > 1:
            errors.append((f"defaults.{limits[1]}", f"says the same as {limits[0]}: only one can be sent"))
        errors += [
            (f"defaults.{name}", "must be an integer above zero")
            for name in limits
            if type(self.defaults[name]) is not int or self.defaults[name] < 1
        ]
        errors += [*repeated("allow", self.allow or []), *repeated("deny", self.deny)]
        denied = {name.casefold() for name in self.deny}
        errors += [
            (f"allow[{index}]", f"`{name}` is denied as well")
            for index, name in enumerate(self.allow or ())
            if name.casefold() in denied
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
    return "" if is_field_name(name) else "is not a field name"


def _why_out_of_range(name: str, value: object) -> str:
    expected = fault_of(name, msgspec.json.encode(value))
    return "" if expected is None else f"must be {expected}"


class Answer(Node):
    """What the text of an answer must be."""

    schema_: Annotated[dict[str, Any], Field(min_length=1)] = Field(
        alias="schema",
        description="JSON Schema of the text, at most 64 KiB and without references to elsewhere. It is sent as"
        " response_format where the request has none, and answers are held against it.",
    )
    strict: bool = Field(
        default=False, description="true: asks for strict mode, which OpenAI has for a part of JSON Schema."
    )
    retry: bool = Field(
        default=False,
        description="true: a whole answer that does not conform is asked for once more; limits reserve for both.",
    )

    @model_validator(mode="after")
    def _is_schema(self) -> Self:
        if len(msgspec.json.encode(self.schema_)) > SCHEMA_BYTES_MAX:
            raise FieldErrors(("schema", f"is larger than {SCHEMA_BYTES_MAX} bytes"))
        try:
            compile_schema(self.schema_)
        except ValueError as error:
            raise FieldErrors(("schema", f"is not a JSON Schema that can be used: {error}")) from None
        return self


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
    prompt: Name | None = Field(default=None, description="A Prompt, NAME.VERSION, that is part of every request.")
    prompt_placement: PromptPlacement | None = Field(
        default=None,
        description="Where the prompt goes. system or developer: before the messages, in that role; user: in the user's"
        " last message. Default: user for a prompt with the variable `input`, else system.",
    )
    parameters: Parameters = Field(
        default_factory=Parameters, description="Request fields that it sets, bounds, takes or refuses."
    )
    answer: Answer | None = Field(
        default=None, description="What answers must be. Default: nothing is asked for, and none is looked at."
    )
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
        if self.prompt_placement is not None and self.prompt is None:
            errors.append(("promptPlacement", "has no effect without a prompt"))
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
