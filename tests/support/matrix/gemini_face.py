"""Gemini with a key, and Vertex with a service account."""

from __future__ import annotations

from typing import Any

from tests.support import gemini as api
from tests.support.documents import Document, backend
from tests.support.matrix.said import REASON, Said, Trouble
from tests.support.scripts import Received, Script, json_reply, stream


class GeminiFace:
    """Gemini."""

    name = "gemini"

    def document(self, url: str) -> Document:
        """See Face."""
        auth = {"type": "header", "name": "x-goog-api-key", "secret": {"env": "LLM_GATEWAY_SECRET_MATRIX"}}
        return backend(self.name, f"{url}/v1beta", provider="gemini", model="gemini-2.5-flash", auth=auth)

    def key(self) -> str:
        """See Face."""
        return "the-operators-key"

    def problems(self, request: Received) -> list[str]:
        """See Face."""
        found = [] if request.header("x-goog-api-key") == self.key() else ["not the operator's key"]
        try:
            api.check(request)
        except (AssertionError, ValueError) as error:
            found.append(str(error))
        return found

    def says(self, said: Said, request: Received) -> Script:
        """See Face."""
        calls = [api.call("get_weather", {"city": call.city}, call_id=call.id) for call in said.calls]
        if not request.target.endswith("alt=sse"):
            return json_reply(api.answer(*([said.text] if said.text else []), *calls))
        pieces: list[Any] = [said.text[at : at + 5] for at in range(0, len(said.text), 5)] + calls
        told = [api.response(api.candidate(piece, finish=None)) for piece in pieces[:-1]]
        told.append(api.response(api.candidate(*pieces[-1:])))
        return stream(api.events(told))

    def trouble(self, trouble: Trouble, request: Received) -> Script:
        """See Face."""
        if trouble == "refused":
            return api.error_reply(400, REASON)
        if trouble == "failed":
            return api.error_reply(500, REASON, "INTERNAL")
        if trouble == "overloaded":
            return api.error_reply(429, REASON, "RESOURCE_EXHAUSTED", api.retry_info("3s"))
        said = api.response(api.candidate("Good", finish=None))
        return stream(api.events([said, api.error(503, "overloaded")]))
