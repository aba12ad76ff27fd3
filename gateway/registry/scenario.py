"""The document of kind Scenario: what a tenant asks for by name. See ``base`` for how these models behave."""

from __future__ import annotations

from collections.abc import Iterator
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
from gateway.registry.conditions import Target, Unmatched, target_errors, unmatched_errors

Percent = Annotated[float, Field(ge=0, le=100)]
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


IgnorableField = Literal[
    "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user"
]


class Embeddings(Node):
    """Where the vectors come from by which questions are compared."""

    backend: Name = Field(description="A Backend of the provider openai, whose /embeddings and model are asked.")
    timeout: PositiveDuration | None = Field(
        default=None, description="How long a question waits for its vector; after it, it is a miss. Default 1s."
    )


class Cache(Node):
    """What is kept of answers, and shared of calls."""

    mode: Literal["none", "exact", "semantic"] = Field(
        default="none",
        description="exact: an answer serves the same request of the same tenant again, and identical calls at the same"
        " time make one call of a backend. semantic: a request also takes the answer to a similar last user message"
        " where all else is the same.",
    )
    embeddings: Embeddings | None = Field(default=None, description="Required for the mode semantic.")
    threshold: Annotated[float, Field(ge=0.1, le=1.0)] | None = Field(
        default=None, description="For the mode semantic: least cosine similarity of two messages. Default 0.95."
    )
    ttl: PositiveDuration | None = Field(default=None, description="How long an answer is kept. Default 10m.")
    max_entry_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] | None = Field(
        default=None, description="Largest answer that is kept, before it is compressed. Default 1048576."
    )
    ignore: Annotated[list[IgnorableField], Field(max_length=16)] = Field(
        default_factory=list,
        description="Request fields in which two calls may differ and still be the same: those that say who asks and"
        " how it is booked. Only where no backend goes by them.",
    )

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        if self.mode == "semantic" and self.embeddings is None:
            raise FieldErrors(("embeddings", "is required for the mode semantic"))
        if self.mode != "semantic":
            unused = [name for name in ("embeddings", "threshold") if getattr(self, name) is not None]
            if unused:
                raise FieldErrors(*((name, "belongs to the mode semantic") for name in unused))
        return self


class Access(Node):
    """Who may ask for the scenario."""

    tenants: Annotated[list[NameOrAll], Field(max_length=10_000)] = Field(
        default_factory=list, description='Tenant names, or "*" for all. Omitted: nobody.'
    )


class Override(Node):
    """What a variant has instead of the scenario's own; each field given replaces the whole of it."""

    prompt: Name | None = Field(default=None, description="A Prompt, NAME.VERSION, instead of the scenario's.")
    parameters: Parameters | None = Field(default=None, description="Instead of spec.parameters, all of them.")
    targets: Annotated[list[Target], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Instead of spec.targets."
    )
    fallbacks: Annotated[list[Name], Field(max_length=16)] | None = Field(
        default=None, description="Instead of spec.fallbacks; an empty list takes them away."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [*target_errors(self.targets or []), *repeated("fallbacks", self.fallbacks or [])]
        if not self.model_fields_set:
            errors.append(("", "must replace something"))
        if errors:
            raise FieldErrors(*errors)
        return self


class Abort(Node):
    """When a canary is withdrawn."""

    error_ratio: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="The share of its calls that may fail, such as 0.05."
    )
    first_token_p95: PositiveDuration | None = Field(
        default=None, description="How long 95 % of its streams may take at most to their first token."
    )
    min_requests: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        default=50, description="How many calls must be known of before it is judged."
    )

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.error_ratio is None and self.first_token_p95 is None:
            raise FieldErrors(("", "must have errorRatio or firstTokenP95"))
        return self


class Canary(Node):
    """A variant for a share of the callers."""

    percent: Percent = Field(description="The share of callers that it gets, such as 5 or 0.5.")
    sticky: Literal["request", "key", "tenant", "user"] = Field(
        default="key",
        description="What stays on one side: a key, a tenant, a user (the request's field `user`, without one the key),"
        " or nothing (each request is drawn anew).",
    )
    override: Override = Field(description="What it has instead.")
    abort: Abort | None = Field(
        default=None, description="Bounds that take it back by themselves until spec changes. Default: none."
    )


class Shadow(Node):
    """A variant that gets copies of requests and answers nobody."""

    percent: Percent = Field(description="The share of requests that it gets a copy of, such as 5 or 0.5.")
    override: Override = Field(description="What it has instead.")


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
    unmatched: Unmatched | None = Field(
        default=None,
        description="Where every target has a condition: what becomes of a request for which none holds."
        " refuse: 400; fallbacks: those are tried.",
    )
    canary: Canary | None = Field(default=None, description="A variant that a share of the callers gets.")
    shadow: Shadow | None = Field(default=None, description="A variant that gets copies of requests, unseen.")
    lenient: bool = Field(
        default=False,
        description="Of a request for a backend of another dialect, what that cannot do is left out and counted."
        " Default: such a request is refused with a 400 that names the field.",
    )
    cache: Cache = Field(default_factory=Cache, description="Whether answers are kept, and identical calls share one.")
    access: Access = Field(default_factory=Access, description="Which tenants it is offered to.")
    disabled: bool = Field(default=False, description="true: nobody can call it, as if it were not there.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [*repeated("aliases", self.aliases), *repeated("fallbacks", self.fallbacks)]
        if self.prompt_placement is not None and not any(self._prompts()):
            errors.append(("promptPlacement", "has no effect without a prompt"))
        errors += target_errors(self.targets)
        variants = [("targets", self.targets, self.fallbacks)]
        for name, variant in (("canary", self.canary), ("shadow", self.shadow)):
            if variant is not None:
                override = variant.override
                field = "targets" if override.targets is None else f"{name}.override.targets"
                fallbacks = self.fallbacks if override.fallbacks is None else override.fallbacks
                variants.append((field, override.targets or self.targets, fallbacks))
        errors += dict.fromkeys(unmatched_errors(self.unmatched, variants))
        if errors:
            raise FieldErrors(*errors)
        return self

    def _prompts(self) -> Iterator[str | None]:
        """The prompts of all variants."""
        yield self.prompt
        yield from (variant.override.prompt for variant in (self.canary, self.shadow) if variant is not None)


class ScenarioDocument(Document):
    """What a tenant asks for by name."""

    kind: Literal["Scenario"] = Field(description="What the document describes.")
    metadata: Metadata = Field(description="Name of the scenario: what callers ask for in the field model.")
    spec: ScenarioSpec = Field(description="How a call is answered, and who may make it.")
