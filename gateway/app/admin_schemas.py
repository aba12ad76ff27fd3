"""What goes into the admin API and what comes out of it, as the models that document it.

Names are those of the registry's documents: camel case, times in RFC 3339, durations such as ``24h``, money in USD as a
decimal string. Nothing that comes out holds a key, but for the one answer to the request that made it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from gateway.registry import values
from gateway.registry.records import rfc3339

Grace = Annotated[float, BeforeValidator(values.duration_s), WithJsonSchema({"type": "string", "examples": ["24h"]})]
Moment = Annotated[float, BeforeValidator(values.unix_s), WithJsonSchema({"type": "string", "format": "date-time"})]
KeyState = Literal["live", "expired", "disabled", "revoked", "unresolved"]


class Model(BaseModel):
    """Base of all of them: closed, in camel case."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class NewKey(Model):
    """A key to be made."""

    tenant: str = Field(description="Name of the tenant that calls with it.")
    name: str | None = Field(default=None, description="Name of the key, as logs show it. Default: made up.")
    scenarios: list[str] | None = Field(default=None, description="Narrows the tenant's. Default: all of them.")
    limits: list[dict[str, Any]] = Field(
        default_factory=list, max_length=64, description="On top of the tenant's, as in an ApiKey."
    )
    expires_at: Moment | None = Field(default=None, description="When it ends. Default: never.")


class Rotation(Model):
    """How a key is replaced."""

    grace: Grace = Field(default=86400.0, description="How long the key in use goes on working beside the new one.")
    expires_at: Moment | None = Field(default=None, description="When the new one ends. Default: never.")


class NewRevocation(Model):
    """A digest that is to open nothing any more."""

    sha256: str = Field(pattern=values.SHA256_PATTERN, description="SHA-256 of the whole key, in hexadecimal digits.")


class DigestView(Model):
    """One digest of a key."""

    sha256: str
    expires_at: str | None = None
    revoked: bool = False


class KeyView(Model):
    """A key as it is."""

    name: str
    tenant: str
    source: Literal["files", "api", "cluster"] = Field(
        description="Who made it: the registry's files, this API, or somebody in the cluster. Only keys of the API can"
        " be changed by it."
    )
    state: KeyState = Field(description="unresolved: its tenant is missing, or another version wrote it.")
    digests: list[DigestView]
    scenarios: list[str] | None = None
    limits: list[str] = Field(default_factory=list, description="Names of its own limits.")
    created_at: str | None = None
    revoked_at: str | None = None


class MadeKey(Model):
    """A new key. It is shown here and never again."""

    key: str
    sha256: str
    expires_at: str | None = None
    details: KeyView


class KeyList(Model):
    """Keys, by name."""

    keys: list[KeyView]


class RevocationView(Model):
    """A digest that opens nothing, whoever lists it."""

    sha256: str
    revoked_at: str
    key: str = ""
    tenant: str = ""


class RevocationList(Model):
    """Revocations, the latest first."""

    revocations: list[RevocationView]


class LimitView(Model):
    """One limit as it is written."""

    name: str
    unit: str
    per: str | None = None
    amount: int | str = Field(description="A count; for cost a decimal string of USD.")
    burst: int | None = None
    scenario: str | None = None
    mode: str
    on_redis_loss: str


class TenantView(Model):
    """A tenant as it is served."""

    name: str
    display_name: str
    disabled: bool
    models: list[str] = Field(description="Names and aliases that it may ask for.")
    limits: list[LimitView]
    keys: list[str] = Field(description="Names of its keys that open now.")


class TenantList(Model):
    """Tenants, by name."""

    tenants: list[TenantView]


def moment(unix_s: float | None) -> str | None:
    """A time as it is shown."""
    return None if unix_s is None else rfc3339(unix_s)


def usd(nano_usd: int) -> str:
    """Money as it is shown, exactly."""
    whole, fraction = divmod(nano_usd, 10**9)
    return f"{whole}.{fraction:09d}".rstrip("0").removesuffix(".")


class LevelView(Model):
    """How much of one limit is left. Amounts are counts; for cost decimal strings of USD."""

    id: str = Field(description="What a reset names it by: its owner and its name.")
    key: str | None = Field(default=None, description="The key that it belongs to; without: the tenant as a whole.")
    name: str
    unit: str
    per: str | None = None
    scenario: str | None = None
    mode: str
    limit: int | str = Field(description="The burst of a rate, else the amount.")
    remaining: int | str
    used: int | str = Field(description="Of a rate: what is missing in its bucket.")
    reset_s: float = Field(description="Seconds until all of it is there again.")


class LevelList(Model):
    """The limits of a tenant and of its keys."""

    levels: list[LevelView]


class Purge(Model):
    """Which kept answers are to be forgotten."""

    tenant: str = Field(max_length=63, description="Name of the tenant.")
    scenario: str | None = Field(
        default=None, max_length=253, description="Name of one scenario. Default: all of them."
    )


class UsageRow(Model):
    """What one key used of one scenario and backend on one UTC day."""

    day: str
    key: str
    scenario: str
    backend: str
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd: str
    estimated_requests: int
    cached_requests: int = Field(description="Answered from the cache or by another's call, without tokens.")


class UsageList(Model):
    """Usage by day, key, scenario and backend."""

    usage: list[UsageRow]
