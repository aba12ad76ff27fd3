"""Which providers are spoken to by translation; those that are not here speak the chat dialect as it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.dialects.anthropic.provider import translate as anthropic
from gateway.dialects.azure import AzureCall
from gateway.dialects.contract import RetryAfter, Translate
from gateway.dialects.gemini.errors import retry_after_s as gemini_retry_after_s
from gateway.dialects.gemini.request import translate as gemini
from gateway.dialects.responses.passing import can_pass
from gateway.dialects.responses.passing import translate as pass_response
from gateway.model import Backend, ChatRequest

TRANSLATES: Final[Mapping[str, Translate]] = MappingProxyType(
    {"azure": AzureCall, "anthropic": anthropic, "gemini": gemini, "vertex": gemini}
)

RETRY_AFTER: Final[Mapping[str, RetryAfter]] = MappingProxyType(
    {"gemini": gemini_retry_after_s, "vertex": gemini_retry_after_s}
)
"""Those of whom the body of a refusal may say how long to wait, where no header field does."""


def translate_of(request: ChatRequest, backend: Backend) -> Translate | None:
    """How a request is told to a backend; None where it is told as the chat request that it is."""
    if request.native is not None and can_pass(request, backend):
        return pass_response
    return TRANSLATES.get(backend.provider)
