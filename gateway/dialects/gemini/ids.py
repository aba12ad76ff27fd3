"""Ids of function calls: Gemini's own where it gives one, else one that is known again as made here."""

from __future__ import annotations

import secrets

_MADE = "call_gw"


def made_id() -> str:
    """A new id; as unlikely to be met again as those of OpenAI."""
    return _MADE + secrets.token_hex(12)


def id_to_send(given: str) -> str | None:
    """The id as Gemini knows it; None where it never gave one, and would be asked to match what it does not have."""
    return None if given.startswith(_MADE) else given
