"""Bedrock."""

from __future__ import annotations

from tests.support import bedrock as api
from tests.support.documents import Document, backend
from tests.support.matrix.said import REASON, Said, Trouble
from tests.support.scripts import Behaviour, Received, Script


class BedrockFace:
    """Converse and ConverseStream, with a bearer key."""

    name = "bedrock"

    def __init__(self) -> None:
        self._bedrock = api.Bedrock({}, bearer=self.key())

    def document(self, url: str) -> Document:
        """See Face."""
        auth = {"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_MATRIX"}}
        return backend(self.name, url, provider="bedrock", model="anthropic.claude-opus-4", auth=auth)

    def key(self) -> str:
        """See Face."""
        return "the-operators-key"

    def problems(self, request: Received) -> list[str]:
        """See Face; what is wrong is noted as the answer is made."""
        found, self._bedrock.faults = self._bedrock.faults, []
        return found

    def says(self, said: Said, request: Received) -> Script:
        """See Face."""
        stop = "tool_use" if said.calls else "stop_sequence" if said.stopped_by else "end_turn"
        if request.target.endswith("/converse"):
            content = [{"text": said.text}] if said.text else []
            uses = [
                {"toolUse": {"toolUseId": call.id, "name": "get_weather", "input": {"city": call.city}}}
                for call in said.calls
            ]
            return _script(self._bedrock.answers([*content, *uses], stop), request)
        events: list[api.Event] = [("messageStart", {"role": "assistant"})]
        place = 0
        if said.text:
            for at in range(0, len(said.text), 5):
                delta = {"text": said.text[at : at + 5]}
                events.append(("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}))
            events.append(("contentBlockStop", {"contentBlockIndex": 0}))
            place = 1
        for index, call in enumerate(said.calls, place):
            use = {"toolUse": {"toolUseId": call.id, "name": "get_weather"}}
            events.append(("contentBlockStart", {"contentBlockIndex": index, "start": use}))
            for piece in ('{"city"', f':"{call.city}"}}'):
                delta_of = {"toolUse": {"input": piece}}
                events.append(("contentBlockDelta", {"contentBlockIndex": index, "delta": delta_of}))
            events.append(("contentBlockStop", {"contentBlockIndex": index}))
        events.append(("messageStop", {"stopReason": stop}))
        events.append(("metadata", {"usage": api.USAGE, "metrics": {"latencyMs": 7}}))
        return _script(self._bedrock.streams(*events), request)

    def trouble(self, trouble: Trouble, request: Received) -> Script:
        """See Face."""
        if trouble == "refused":
            return _script(self._bedrock.fails(400, "ValidationException", REASON), request)
        if trouble == "failed":
            return _script(self._bedrock.fails(500, "InternalServerException", REASON), request)
        if trouble == "overloaded":
            return _script(self._bedrock.fails(429, "ThrottlingException", REASON), request)
        delta = {"contentBlockIndex": 0, "delta": {"text": "Good"}}
        said = [api.encode_event("messageStart", {"role": "assistant"}), api.encode_event("contentBlockDelta", delta)]
        broken = api.encode_exception("modelStreamErrorException", "overloaded")
        return _script(self._bedrock.says([*said, broken]), request)


def _script(behaviour: Behaviour, request: Received) -> Script:
    return behaviour if isinstance(behaviour, Script) else behaviour(request)
