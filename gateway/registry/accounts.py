"""The documents of those who call: Tenant and ApiKey, with their limits; and of what they are given: Prompt.

See ``base`` for how these models behave.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, WithJsonSchema, model_validator

from gateway.model import LimitUnit
from gateway.registry import template, values
from gateway.registry.base import (
    Document,
    FieldErrors,
    FreeText,
    Label,
    Metadata,
    Name,
    NameOrAll,
    Network,
    Node,
    Sha256,
    TenantMetadata,
    Time,
    Variable,
    repeated,
)

COUNT_MAX = 10**15
COST_MAX_NANO_USD = 2**53 - 1  # what a double, and so a script in Redis, counts exactly
Period = Literal["second", "minute", "hour", "day", "month"]
_RATES = ("second", "minute", "hour")


def _amount(value: object) -> int | str:
    if isinstance(value, int | str) and not isinstance(value, bool):
        return value
    raise ValueError('must be an integer, or for cost a string of USD such as "400"')


Amount = Annotated[
    int | str,
    PlainValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": COUNT_MAX},
                {"type": "string", "pattern": values.MONEY_PATTERN},
            ],
            "description": "A count; for cost a decimal string of USD.",
        }
    ),
]


class Limit(Node):
    """One limit: a rate (second, minute, hour), a budget (day, month), or concurrency."""

    name: Name | None = Field(default=None, description="Name of the limit, unique in its list. Default: derived.")
    unit: LimitUnit = Field(description="What is counted.")
    per: Period | None = Field(default=None, description="Per which time. Required, except for concurrency.")
    amount: Amount = Field(description="How much; an integer, for cost a decimal string of USD.")
    burst: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = Field(
        default=None, description="How much at once, for rates. Default: the amount."
    )
    scenario: Name | None = Field(default=None, description="Counts calls of this scenario only.")
    mode: Literal["enforce", "shadow"] = Field(default="enforce", description="shadow counts and refuses nobody.")
    on_redis_loss: Literal["local", "open", "closed"] = Field(
        default="local",
        description="Without Redis: local counts in each replica alone, open lets pass, closed refuses.",
    )

    @property
    def effective_name(self) -> str:
        """The given name, else one such as ``input-tokens-per-minute-support-chat``."""
        unit = {"inputTokens": "input-tokens", "outputTokens": "output-tokens"}.get(self.unit, self.unit)
        parts = [unit, f"per-{self.per}" if self.per else "", self.scenario or ""]
        return self.name or "-".join(part for part in parts if part)

    @property
    def counted(self) -> int:
        """The amount as a count, or in nano-USD where the unit is cost."""
        return values.nano_usd(self.amount) if self.unit == "cost" else int(self.amount)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [*self._period_errors(), *self._amount_errors()]
        if errors:
            raise FieldErrors(*errors)
        return self

    def _period_errors(self) -> Iterator[tuple[str, str]]:
        if self.unit == "concurrency":
            if self.per is not None:
                yield "per", "is not for concurrency"
        elif self.per is None:
            yield "per", f"is required with unit {self.unit}"
        elif self.unit == "cost" and self.per in _RATES:
            yield "per", "must be day or month with unit cost"
        if self.burst is not None and self.per not in _RATES:
            yield "burst", "is for rates only (per second, minute or hour)"

    def _amount_errors(self) -> Iterator[tuple[str, str]]:
        if self.unit == "cost":
            try:
                if not 0 < values.nano_usd(self.amount) <= COST_MAX_NANO_USD:
                    yield "amount", f"must be above zero and at most {COST_MAX_NANO_USD // 10**9} USD"
            except ValueError as error:
                yield "amount", str(error)
        elif not isinstance(self.amount, int):
            yield "amount", f"must be an integer with unit {self.unit}"
        elif not 1 <= self.amount <= COUNT_MAX:
            yield "amount", f"must be from 1 to {COUNT_MAX}"


Limits = Annotated[list[Limit], Field(max_length=64)]
ScenarioNames = Annotated[list[NameOrAll], Field(max_length=10_000)]


def _limit_name_errors(limits: list[Limit]) -> Iterator[tuple[str, str]]:
    names = [limit.effective_name for limit in limits]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"limits[{index}].name", f"`{name}` is also the name of limits[{names.index(name)}]; give it another"


class Oidc(Node):
    """How a JWT names this tenant."""

    issuer: Annotated[
        str, StringConstraints(max_length=2048, pattern=values.ISSUER_PATTERN), AfterValidator(values.issuer)
    ] = Field(description="Who signs the token, exactly as its claim iss says; its keys are found by discovery.")
    audience: FreeText = Field(description="Whom the token is for, as its claim aud says.")
    claim: FreeText = Field(description="Name of the claim that tells tenants apart.")
    value: FreeText = Field(description="What that claim says of this tenant, or lists among others.")


class TenantSpec(Node):
    """Who calls, what they may use and how much."""

    display_name: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="For people; without effect."
    )
    scenarios: ScenarioNames = Field(default_factory=list, description='Scenario names, or "*" for all. Omitted: none.')
    limits: Limits = Field(default_factory=list, description="Limits of the tenant as a whole.")
    ip_allow_list: Annotated[list[Network], Field(max_length=1024)] | None = Field(
        default=None, description="CIDR blocks that calls may come from. Omitted: everywhere; empty: nowhere."
    )
    oidc: Oidc | None = Field(default=None, description="How a JWT names this tenant. Omitted: by its keys only.")
    disabled: bool = Field(default=False, description="true: every key of it is refused.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [*repeated("scenarios", self.scenarios), *_limit_name_errors(self.limits)]
        if errors:
            raise FieldErrors(*errors)
        return self


class TenantDocument(Document):
    """Who calls, what they may use and how much."""

    kind: Literal["Tenant"] = Field(description="What the document describes.")
    metadata: TenantMetadata = Field(description="Name of the tenant.")
    spec: TenantSpec = Field(description="What it may use.")


class Digest(Node):
    """One digest that opens the tenant's door."""

    sha256: Sha256 = Field(description="SHA-256 of the whole key, in hexadecimal digits.")
    expires_at: Time | None = Field(default=None, description="When it ends: RFC 3339 with a zone. Omitted: no end.")


class ApiKeySpec(Node):
    """A key of a tenant, known by its digests."""

    tenant: Label = Field(description="Name of the Tenant that calls with it.")
    digests: Annotated[list[Digest], Field(min_length=1, max_length=16)] = Field(
        description="SHA-256 of the whole key; several while it rotates."
    )
    scenarios: ScenarioNames | None = Field(default=None, description="Narrows the tenant's. Omitted: all of them.")
    limits: Limits = Field(default_factory=list, description="On top of the tenant's.")
    disabled: bool = Field(default=False, description="true: the key is refused.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        digests = [digest.sha256 for digest in self.digests]
        errors = [(f"{field}.sha256", "is listed twice") for field, _ in repeated("digests", digests)]
        errors += [*repeated("scenarios", self.scenarios or []), *_limit_name_errors(self.limits)]
        if errors:
            raise FieldErrors(*errors)
        return self


class ApiKeyDocument(Document):
    """A key of a tenant."""

    kind: Literal["ApiKey"] = Field(description="What the document describes.")
    metadata: Metadata = Field(description="Name of the key, as logs show it.")
    spec: ApiKeySpec = Field(description="Whose key it is, and what opens with it.")


class PromptSpec(Node):
    """A template and its variables."""

    input_vars: Annotated[list[Variable], Field(max_length=64)] = Field(
        default_factory=list,
        description="Names of the variables; a call gives each. `input` is, where not given, what the user said.",
    )
    template: Annotated[str, StringConstraints(min_length=1, max_length=262_144)] = Field(
        description="The text; {name} is a variable; {{ and }} are literal braces."
    )

    @model_validator(mode="after")
    def _variables_match(self) -> Self:
        try:
            parts = template.split(self.template)
        except template.TemplateError as error:
            raise FieldErrors(("template", str(error))) from None
        errors = list(template.mismatches(parts, self.input_vars))
        if errors:
            raise FieldErrors(*errors)
        return self


class PromptMetadata(Metadata):
    """Metadata of a prompt, whose name ends in its version."""

    @model_validator(mode="after")
    def _versioned(self) -> Self:
        if "." not in self.name:
            raise FieldErrors(("name", "must be NAME.VERSION, such as summarize.v1"))
        return self


class PromptDocument(Document):
    """One immutable version of a prompt."""

    kind: Literal["Prompt"] = Field(description="What the document describes.")
    metadata: PromptMetadata = Field(description="Name of the prompt, NAME.VERSION.")
    spec: PromptSpec = Field(description="Its text.")


class PromptFile(Node):
    """The bare form of a prompt: the file prompts/NAME/VERSION.yaml."""

    version: str = Field(description="As the file is named.")
    input_vars: Annotated[list[Variable], Field(max_length=64)] = Field(
        default_factory=list, alias="input_vars", description="As spec.inputVars of a Prompt."
    )
    template: Annotated[str, StringConstraints(min_length=1, max_length=262_144)] = Field(
        description="As spec.template of a Prompt."
    )
