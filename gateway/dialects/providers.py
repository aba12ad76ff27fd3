"""Which providers are spoken to by translation; those that are not here speak the chat dialect as it is.

Each translation is loaded with its first call: a gateway holds in memory what its backends need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from gateway.dialects.azure import AzureCall
from gateway.dialects.completions.passing import PassedCompletion
from gateway.dialects.completions.passing import can_pass as passes_completion
from gateway.dialects.contract import RetryAfter, Translate, Translation
from gateway.dialects.responses.passing import can_pass
from gateway.dialects.responses.passing import translate as pass_response
from gateway.errors import AttemptFailed
from gateway.model import Backend, ChatRequest

ReadFailure = Callable[[int, Sequence[tuple[bytes, bytes]]], AttemptFailed | None]
"""What an answer that is not 200 means by its status and header fields; None where its status says it all."""


def _messages(request: ChatRequest, backend: Backend) -> Translation:
    from gateway.dialects.anthropic.provider import translate

    return translate(request, backend)


def _generate(request: ChatRequest, backend: Backend) -> Translation:
    from gateway.dialects.gemini.request import translate

    return translate(request, backend)


def _wait_of_gemini(body: bytes) -> float | None:
    from gateway.dialects.gemini.errors import retry_after_s

    return retry_after_s(body)


def _converse(request: ChatRequest, backend: Backend) -> Translation:
    from gateway.dialects.bedrock.translation import ConverseTranslation

    return ConverseTranslation(request, backend)


def _failure_of_bedrock(status: int, headers: Sequence[tuple[bytes, bytes]]) -> AttemptFailed | None:
    from gateway.dialects.bedrock.errors import failure

    return failure(status, headers)


TRANSLATES: Final[Mapping[str, Translate]] = MappingProxyType(
    {"azure": AzureCall, "anthropic": _messages, "bedrock": _converse, "gemini": _generate, "vertex": _generate}
)

RETRY_AFTER: Final[Mapping[str, RetryAfter]] = MappingProxyType({"gemini": _wait_of_gemini, "vertex": _wait_of_gemini})
"""Those of whom the body of a refusal may say how long to wait, where no header field does."""

FAILURES: Final[Mapping[str, ReadFailure]] = MappingProxyType({"bedrock": _failure_of_bedrock})
"""Of providers whose statuses do not say what went wrong."""


def translate_of(request: ChatRequest, backend: Backend) -> Translate | None:
    """How a request is told to a backend; None where it is told as the chat request that it is.

    Raises InvalidRequest.
    """
    if request.native is not None:
        if can_pass(request, backend):
            return pass_response
        if passes_completion(request, backend):
            return PassedCompletion
    return TRANSLATES.get(backend.provider)
