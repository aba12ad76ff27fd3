"""Which providers are spoken to by translation; those that are not here speak the chat dialect as it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.dialects.azure import AzureCall
from gateway.dialects.contract import Translate
from gateway.dialects.responses.passing import can_pass
from gateway.dialects.responses.passing import translate as pass_response
from gateway.model import Backend, ChatRequest

TRANSLATES: Final[Mapping[str, Translate]] = MappingProxyType({"azure": AzureCall})


def translate_of(request: ChatRequest, backend: Backend) -> Translate | None:
    """How a request is told to a backend; None where it is told as the chat request that it is."""
    if request.native is not None and can_pass(request, backend):
        return pass_response
    return TRANSLATES.get(backend.provider)
