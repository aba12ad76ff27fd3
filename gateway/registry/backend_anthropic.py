"""``spec.anthropic`` of a Backend: how one that speaks Messages is spoken to. See ``base`` for such models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.registry.base import Node

Beta = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._-]{1,64}|\*)$")]
BetaName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

HEADERS = frozenset({"anthropic-version", "anthropic-beta"})
"""Headers that say the same."""


class Anthropic(Node):
    """How a backend that speaks Anthropic Messages is spoken to."""

    version: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] = Field(
        default="2023-06-01", description="Header anthropic-version."
    )
    betas: Annotated[list[BetaName], Field(max_length=64)] = Field(
        default_factory=list, description="Header anthropic-beta, sent with every request."
    )
    caller_betas: Annotated[list[Beta], Field(max_length=64)] = Field(
        default_factory=list,
        description="What callers of Messages may add to it with that header of theirs; `*`: anything. What else they"
        " ask for is left out. Default: nothing.",
    )
    thinking: Literal["adaptive", "budget", "none"] = Field(
        default="adaptive",
        description="What reasoning_effort becomes. adaptive: an effort, with adaptive thinking; budget: a budget of"
        " tokens to think, for models before Claude Opus 4.6; none: the field is refused.",
    )
