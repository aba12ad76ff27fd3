"""The values that hold no others: see ``gateway.model``, where they are found."""

from __future__ import annotations

from typing import ClassVar

import msgspec


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


class EchoOptions(Frozen, frozen=True):
    """How the in-process ``echo`` provider answers."""

    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0
    output_tokens: int | None = None  # None: as many words as the last user message has


class Usage(Frozen, frozen=True):
    """Tokens of one call; ``estimated`` where the backend did not report them."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        """What two answers used."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            estimated=self.estimated or other.estimated,
        )


class Credentials(Frozen, frozen=True):
    """What a caller presented: one value per header that may carry a credential, and what is known of them alone."""

    presented: tuple[bytes, ...]
    client_ip: str
    digest: bytes = b""  # SHA-256 of the key; empty where ``fault`` says why there is none
    fault: str = "no credential"
