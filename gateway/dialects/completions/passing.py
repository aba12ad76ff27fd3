"""A backend that has Completions, called by one who speaks it: request and answer pass as they are. Pure.

Only that is exchanged which the scenario decides, and that only where Completions has the field, too.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.dialects.ask import impossible
from gateway.dialects.azure import endpoint_path
from gateway.dialects.completions.read import PROMPT
from gateway.dialects.contract import EventStream, Outgoing, Translator
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.dialects.openai.request import encode_chat_request
from gateway.dialects.openai.stream import ChatStream
from gateway.dialects.openai.usage import ABSENT
from gateway.model import Backend, ChatRequest, Dialect, Native

PATH: Final = "/completions"
_CHATS_ONLY: Final = frozenset(
    {"messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "max_completion_tokens", "functions",
     "function_call", "modalities", "audio", "prediction", "reasoning_effort", "logprobs", "top_logprobs"}
)  # fmt: skip


class _Text(msgspec.Struct):
    text: msgspec.Raw = ABSENT


class _Texts(msgspec.Struct):
    choices: list[_Text] = []


_decode_texts = msgspec.json.Decoder(_Texts).decode


def can_pass(request: ChatRequest, backend: Backend) -> bool:
    """Whether the request passes as it is: both speak Completions, and the scenario set nothing that only chats have.

    Raises InvalidRequest where it can only pass, and does not: of several prompts, or of tokens, no chat can be made.
    """
    native = request.native
    if native is None:
        return False
    if (
        native.dialect == "completions"
        and "completions" in backend.apis
        and _CHATS_ONLY.isdisjoint(_changed(native, request))
    ):
        return True
    if PROMPT in native.beyond and "input" not in native.fields:
        raise impossible(PROMPT, "it answers one text")
    return False


def _changed(native: Native, request: ChatRequest) -> set[str]:
    before, after = native.chat, request.fields
    return {name for name in {*before, *after} if before.get(name, ABSENT) != after.get(name, ABSENT)} - {"model"}


class PassedCompletion:
    """See ``Translation``."""

    dialect: Dialect = "completions"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        native = request.native
        assert native is not None, "asked for by ``can_pass``"
        fields: dict[str, msgspec.Raw | bytes] = dict(native.fields)
        for name in _changed(native, request):
            if name in request.fields:
                fields[name] = request.fields[name]
            else:
                fields.pop(name, None)
        fields.pop("prompt_variables", None)
        path = endpoint_path(backend, request.model, PATH) if backend.provider == "azure" else PATH
        body = encode_chat_request(msgspec.structs.replace(request, fields=fields), backend)
        self._drop_usage = not request.include_usage
        self.outgoing = Outgoing(path=path, body=body)

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """See ``Translation``."""
        facts = read_reply(body)
        return body, facts if facts.usage is not None else ReplyFacts(None, _output_bytes(body))

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002  # as it came
        """See ``Translation``."""
        return body

    def events(self, max_event_bytes: int) -> EventStream:
        """See ``Translation``: they are framed, and end, as those of chats."""
        return ChatStream(drop_usage=self._drop_usage, max_event_bytes=max_event_bytes)

    def translator(self, max_event_bytes: int) -> Translator | None:  # noqa: ARG002  # nothing is translated
        """See ``Translation``."""
        return None


def _output_bytes(body: bytes) -> int:
    try:
        return sum(max(len(each.text) - 2, 0) for each in _decode_texts(body).choices)
    except (msgspec.DecodeError, RecursionError):
        return len(body)
