"""The values that hold no others: see ``gateway.model``, where they are found."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Api = Literal[
    "responses",
    "completions",
    "embeddings",
    "moderations",
    "rerank",
    "images",
    "transcriptions",
    "translations",
    "speech",
]
"""What a backend of OpenAI's dialect may have beside chat completions."""

Operation = Literal["chat", "embeddings", "moderations", "rerank", "images", "transcriptions", "translations", "speech"]
"""What is asked of a model."""


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every value: immutable, cheap to make.

    ``no_effect`` names the fields that cannot change what a model answers, see ``Scenario.fingerprint``: whatever is
    not named there counts.
    """

    no_effect: ClassVar[frozenset[str]] = frozenset()


class Problem(Frozen, frozen=True):
    """One thing wrong in the registry: where (file or resource), which object, which field, why."""

    source: str
    object: str
    field: str
    reason: str

    def __str__(self) -> str:
        place = " ".join(part for part in (self.source, self.object) if part)
        return f"{place}: {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


class Timeouts(Frozen, frozen=True):
    """How long an attempt may take, in seconds, stage by stage; all > 0."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 540.0

    @property
    def soonest_s(self) -> float:
        """How long after its start an attempt can be late at the earliest."""
        return min(self.first_byte_s, self.idle_s, self.total_s)


class Price(Frozen, frozen=True):
    """Nano-USD per million tokens."""

    input_nano_usd: int
    cached_input_nano_usd: int
    output_nano_usd: int
    cache_write_nano_usd: int | None = None  # for input that is written to a cache; None: as other input

    @property
    def written_nano_usd(self) -> int:
        """For input tokens that are written to a cache."""
        return self.input_nano_usd if self.cache_write_nano_usd is None else self.cache_write_nano_usd

    @property
    def dearest_input_nano_usd(self) -> int:
        """What an input token can cost at most."""
        return max(self.input_nano_usd, self.cached_input_nano_usd, self.written_nano_usd)


class AnthropicOptions(Frozen, frozen=True):
    """How a backend that speaks Anthropic Messages is spoken to."""

    version: str = "2023-06-01"
    betas: tuple[str, ...] = ()  # asked for with every request
    caller_betas: frozenset[str] = frozenset()  # that callers of Messages may ask for; "*": any
    thinking: Literal["adaptive", "budget", "none"] = "adaptive"  # how its model is asked to reason


class Batch(Frozen, frozen=True):
    """How the inputs of a large call are sent: so many together, in so many calls at the same time; both >= 1."""

    inputs: int
    concurrent: int = 4


class BedrockOptions(Frozen, frozen=True):
    """How a model of Amazon Bedrock is called."""

    model_fields: tuple[str, ...] = ()  # request fields for the model beyond those that Converse knows
    guardrail: tuple[str, str] | None = None  # its id or ARN, and its version


class EchoOptions(Frozen, frozen=True):
    """How the in-process ``echo`` provider answers."""

    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0
    output_tokens: int | None = None  # None: as many words as the last user message has


class Usage(Frozen, frozen=True):
    """Tokens of one call; ``estimated`` where the backend did not report them."""

    input_tokens: int = 0
    cached_input_tokens: int = 0  # of the input, read from a cache of the backend
    output_tokens: int = 0
    estimated: bool = False
    cache_written_input_tokens: int = 0  # of the input, written to such a cache
    reasoning_tokens: int = 0  # of the output

    def __add__(self, other: Usage) -> Usage:
        """What two answers used."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            estimated=self.estimated or other.estimated,
            cache_written_input_tokens=self.cache_written_input_tokens + other.cache_written_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


class Credentials(Frozen, frozen=True):
    """What a caller presented: one value per header that may carry a credential, and what is known of them alone."""

    presented: tuple[bytes, ...]
    client_ip: str
    digest: bytes = b""  # SHA-256 of the key; empty where ``fault`` says why there is none
    fault: str = "no credential"
