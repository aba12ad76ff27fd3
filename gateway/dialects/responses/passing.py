"""A backend that speaks Responses, called by one who does: request and answer pass as they are. Pure.

Of the request only that is exchanged which the scenario decides: the model's name, the output limit, and fields that it
has set. What was said earlier is sent along, and nothing is asked of what the provider keeps: all tenants share the
account there. Source: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.dialects.contract import Outgoing
from gateway.dialects.openai.reply import ReplyFacts
from gateway.dialects.openai.usage import ABSENT
from gateway.dialects.responses.dialect import RESPONSES
from gateway.dialects.responses.items import split_items
from gateway.dialects.sse import EventReader
from gateway.errors import AttemptFailed, GatewayError, InvalidRequest
from gateway.model import Backend, ChatRequest, Dialect, Native, Usage

PATH: Final = "/responses"
_PIECE_BYTES_MAX: Final = 1 << 40  # what is watched is whole events, and bounded by whoever passes them on
_encode = msgspec.json.Encoder().encode
_SAME: Final = frozenset(
    {"temperature", "top_p", "top_logprobs", "parallel_tool_calls", "metadata", "user", "safety_identifier",
     "prompt_cache_key", "prompt_cache_retention", "service_tier"}
)  # fmt: skip
_LIMITS: Final = frozenset({"max_tokens", "max_completion_tokens"})


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _InputDetails | None = None


class _Response(msgspec.Struct):
    output: msgspec.Raw = ABSENT
    usage: _Usage | None = None
    error: msgspec.Raw = ABSENT
    status: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    delta: msgspec.Raw = ABSENT


_decode_response = msgspec.json.Decoder(_Response).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


def can_pass(request: ChatRequest, backend: Backend) -> bool:
    """Whether a request passes as it is: both speak Responses, and the scenario changed nothing that has to be told in
    the words of the chat dialect.
    """
    native = request.native
    if native is None or native.dialect != "responses" or "responses" not in backend.apis:
        return False
    changed = _changed(native, request)
    return all(name in _SAME or name in _LIMITS or name in _MOVED for name in changed) and (
        "messages" not in changed or _prefix(native, request) is not None
    )


def _changed(native: Native, request: ChatRequest) -> set[str]:
    before, after = native.chat, request.fields
    return {name for name in {*before, *after} if before.get(name, ABSENT) != after.get(name, ABSENT)} - {"model"}


def _prefix(native: Native, request: ChatRequest) -> msgspec.Raw | None:
    """The messages that the scenario put before all others, as items; None where it changed more than that."""
    before, after = bytes(native.chat["messages"]), bytes(request.fields["messages"])
    if not after.endswith(before[1:]):
        return None
    return msgspec.Raw(after[: 1 - len(before)].removesuffix(b",") + b"]") if after != before else None


class PassedResponse:
    """See ``Translation``."""

    dialect: Dialect = "responses"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        native = request.native
        assert native is not None, "asked for by ``can_pass``"
        self.outgoing = Outgoing(path=PATH, body=_encode(_fields(native, request, backend)))

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """See ``Translation``."""
        try:
            response = _decode_response(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AttemptFailed("protocol_error", f"the body of a 200 is no response: {error}") from None
        if response.error != ABSENT:
            raise AttemptFailed("error_in_body", "a 200 whose body is an error")
        if response.output == ABSENT:
            raise AttemptFailed("protocol_error", "the body of a 200 has no output")
        return body, ReplyFacts(_usage(response), len(response.output))

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002  # as it came
        """See ``Translation``."""
        return body

    def events(self, max_event_bytes: int) -> PassedEvents:
        """See ``Translation``."""
        return PassedEvents(max_event_bytes)

    def translator(self, max_event_bytes: int) -> None:
        """Nothing is translated."""


def _fields(native: Native, request: ChatRequest, backend: Backend) -> dict[str, Any]:
    """The members to send."""
    fields: dict[str, Any] = dict(native.fields)
    fields["model"] = backend.model or request.model
    chat = request.fields
    for name in _changed(native, request):
        raw = chat.get(name, ABSENT)
        if name in _SAME:
            fields[name] = raw
        elif name in _MOVED:
            _MOVED[name](fields, raw)
    prefix = _prefix(native, request)
    if prefix is not None:
        first = split_items(prefix)
        fields["input"] = [*first, *split_items(native.fields["input"])]
    limit = request.max_output_tokens
    if request.output_limit is not None:
        limit = min(request.output_limit, backend.max_output_tokens, *(() if limit is None else (limit,)))
    if limit is not None:
        fields["max_output_tokens"] = limit
    fields.pop("prompt_variables", None)
    return {name: value for name, value in fields.items() if name.casefold() not in backend.unsupported_fields}


def _move_effort(fields: dict[str, Any], raw: msgspec.Raw | bytes) -> None:
    fields["reasoning"] = _members(fields.get("reasoning")) | {"effort": msgspec.Raw(bytes(raw))}


def _nothing(fields: dict[str, Any], raw: msgspec.Raw | bytes) -> None:
    """For what is told elsewhere."""


_MOVED: Final[Mapping[str, Callable[[dict[str, Any], msgspec.Raw | bytes], None]]] = {
    "reasoning_effort": _move_effort,
    "messages": _nothing,
    "prompt_variables": _nothing,
}


def _members(raw: msgspec.Raw | None) -> dict[str, Any]:
    return {} if raw is None or raw == ABSENT else dict(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))


def _usage(response: _Response) -> Usage | None:
    usage = response.usage
    if usage is None or min(usage.input_tokens, usage.output_tokens) < 0:
        return None
    details = usage.input_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return Usage(
        input_tokens=usage.input_tokens,
        cached_input_tokens=max(0, min(cached, usage.input_tokens)),
        output_tokens=usage.output_tokens,
    )


class PassedEvents:
    """See ``EventStream``: whole events as they come, of which those that matter are read."""

    def __init__(self, max_event_bytes: int) -> None:
        self._reader = EventReader(max_event_bytes)
        self._held = b""
        self.started = False
        self.done = False
        self.failed = False
        self.usage: Usage | None = None
        self.begun_usage: Usage | None = None  # reported with the end alone
        self.events = 0
        self.output_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """See ``EventStream``."""
        for event in self._reader.feed(data):
            self._note(event.data)
        whole = self._held + data
        held = self._reader.held_bytes
        self._held = whole[len(whole) - held :] if held else b""
        return whole[: len(whole) - held]

    def end(self) -> bytes:
        """See ``EventStream``."""
        for event in self._reader.end():
            self._note(event.data)
        if not self.done:
            raise AttemptFailed("protocol_error", "the stream ended before the response did")
        held, self._held = self._held, b""
        return held

    def error_event(self, error: GatewayError) -> bytes:
        """See ``EventStream``."""
        return RESPONSES.error_event(error)

    def _note(self, data: bytes) -> None:
        first = not self.started
        self.started = True
        self.events += 1
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, RecursionError) as error:
            if first:
                raise AttemptFailed("protocol_error", f"the first event is none of a response: {error}") from None
            return
        if event.delta != ABSENT:
            self.output_bytes += max(len(event.delta) - 2, 0)
        if event.type == "error" or event.type in _ENDS:
            self.done = True
            self.failed = event.type in {"error", "response.failed"}
        if event.response is not None and event.response.usage is not None:
            self.usage = _usage(event.response)


def translate(request: ChatRequest, backend: Backend) -> PassedResponse:
    """See ``Translate``; only for what ``can_pass``."""
    if not can_pass(request, backend):
        raise InvalidRequest("This model cannot be called with `responses`.", code="unsupported_field")
    return PassedResponse(request, backend)


class _Kept(msgspec.Struct):
    id: str = ""
    status: str | None = None
    output: list[msgspec.Raw] = []


class _End(msgspec.Struct):
    response: _Kept


_decode_kept = msgspec.json.Decoder(_Kept).decode
_decode_end = msgspec.json.Decoder(_End).decode


def answered(body: bytes) -> tuple[str, list[msgspec.Raw]] | None:
    """The id and the items of a whole response; None where it is not complete."""
    try:
        response = _decode_kept(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return _of(response)


def _of(response: _Kept) -> tuple[str, list[msgspec.Raw]] | None:
    return (response.id, response.output) if response.id and response.status in {"completed", "incomplete"} else None


class Watched:
    """Passes a stream as it comes, and tells ``on_end`` of the id and the items of the response that it completes."""

    def __init__(self, on_end: Callable[[str, list[msgspec.Raw]], None]) -> None:
        self._reader = EventReader(_PIECE_BYTES_MAX)
        self._on_end = on_end

    def feed(self, data: bytes) -> bytes:
        """See ``Translator``."""
        for event in self._reader.feed(data):
            if event.name in {b"response.completed", b"response.incomplete"}:
                try:
                    found = _of(_decode_end(event.data).response)
                except (msgspec.DecodeError, RecursionError):
                    continue
                if found is not None:
                    self._on_end(*found)
        return data

    def end(self) -> bytes:
        """See ``Translator``."""
        return b""
