"""Azure OpenAI: the chat dialect under addresses of its own; everything passes as it is. Pure.

A backend with an ``api_version`` that is a date is called at its deployments, ``/openai/deployments/NAME/...``, any
other at the v1 API, ``/openai/v1/...``, where the body's ``model`` names the deployment.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/reference and
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.dialects.contract import EventStream, Outgoing, Translator
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.dialects.openai.request import encode_chat_request
from gateway.dialects.openai.stream import ChatStream

if TYPE_CHECKING:
    from gateway.model import Backend, ChatRequest, Dialect

UNDATED = ("preview", "latest")
"""Versions of the v1 API; without one it is the stable one."""

_PATHS_MAX = 1024


def endpoint_path(backend: Backend, model: str, endpoint: str) -> str:
    """What follows the address of the resource, query included. ``endpoint`` is as in ``/chat/completions``."""
    return _path(backend.api_version, backend.model or model, endpoint)


@lru_cache(_PATHS_MAX)
def _path(version: str | None, deployment: str, endpoint: str) -> str:
    if version is None:
        return f"/openai/v1{endpoint}"
    if version in UNDATED:
        return f"/openai/v1{endpoint}?api-version={version}"
    return f"/openai/deployments/{quote(deployment, safe='')}{endpoint}?api-version={version}"


class AzureCall:
    """One call of a deployment; see ``Translation``."""

    dialect: Dialect = "chat"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        self._drop_usage = not request.include_usage
        self.outgoing = Outgoing(
            path=endpoint_path(backend, request.model, "/chat/completions"), body=encode_chat_request(request, backend)
        )

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """The answer as it is."""
        return body, read_reply(body)

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002  # whatever the status
        """The refusal as it is: what the content filter says is in its ``innererror``."""
        return body

    def events(self, max_event_bytes: int) -> EventStream:
        """The events as they are."""
        return ChatStream(drop_usage=self._drop_usage, max_event_bytes=max_event_bytes)

    def translator(self, max_event_bytes: int) -> Translator | None:  # noqa: ARG002  # nothing is held
        """None: they pass as they come."""
        return None
