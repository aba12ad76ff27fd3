"""The conversation of a chat request as Gemini takes it: a system instruction, and turns of user and model.

Invariants:
- Messages of one side that follow each other are one turn, and so are the results of parallel calls; results and what
  the user says are apart, since as many results must answer as there were calls.
- What a message holds and Gemini has no place for is refused by its name, or noted as left out.

Sources: https://ai.google.dev/api/caching#Content, https://ai.google.dev/gemini-api/docs/function-calling,
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from gateway.dialects import form
from gateway.dialects.ask import Ask
from gateway.dialects.gemini.ids import id_to_send
from gateway.dialects.gemini.media import NotTaken, audio_of, file_of, image_of
from gateway.dialects.gemini.schema import Blob, Content, FileData, FunctionResponse, ResultPart, SentCall, SentPart
from gateway.errors import InvalidRequest

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""Stands where another model made a call, or its signature was lost: the word that the reference gives for it."""

_Side = Literal["user", "model"]


class _Google(msgspec.Struct):
    thought_signature: str | None = None


class _Extra(msgspec.Struct):
    google: _Google | None = None


class _Object(msgspec.Struct):
    """Any JSON object."""


_decode_extra = msgspec.json.Decoder(_Extra).decode
_decode_object = msgspec.json.Decoder(_Object).decode


class Conversation:
    """What is made of the messages. ``signs``: the model wants a signature with the first call of each turn."""

    def __init__(self, ask: Ask, *, signs: bool) -> None:
        self._ask = ask
        self._allowed = ask.backend.file_uris
        self._signs = signs
        self._system: list[SentPart] = []
        self._turns: list[Content] = []
        self._calls: dict[str, tuple[int, str]] = {}  # by id: the place among all calls, the function's name
        self._results: list[tuple[int, SentPart]] = []
        readers = {
            "system": self._instruct,
            "developer": self._instruct,
            "user": self._user,
            "assistant": self._assistant,
            "tool": self._result,
        }
        for place, message in enumerate(ask.messages()):
            if message.role != "tool":
                self._answer()
            readers[message.role](message, f"messages[{place}]")
        self._answer()

    @property
    def system(self) -> Content | None:
        """The system instruction, where anything was said besides."""
        return Content(parts=self._system) if self._system and self._turns else None

    @property
    def contents(self) -> list[Content]:
        """The turns. A system instruction alone is said by the user, since there has to be a turn."""
        return self._turns or [Content(role="user", parts=self._system)]

    def _instruct(self, message: form.Message, field: str) -> None:
        """A system prompt; one after the conversation has begun is said by the user, in its place."""
        self._refuse(message, field, "name")
        parts = list(self._parts(message, field))
        if self._turns:
            self._say("user", parts)
        else:
            self._system += parts

    def _user(self, message: form.Message, field: str) -> None:
        self._refuse(message, field, "name")
        self._say("user", list(self._parts(message, field)) or [SentPart(text="")])

    def _assistant(self, message: form.Message, field: str) -> None:
        self._refuse(message, field, "name", "audio", "function_call")
        parts = [part for part in self._parts(message, field) if part.text != ""]
        if message.refusal:
            parts.append(SentPart(text=message.refusal))
        signature = _signature(message.extra_content, f"{field}.extra_content")
        if signature is not None:  # of the last part that is no call
            if not parts:
                parts.append(SentPart(text=""))
            parts[-1].thought_signature = signature
        calls = [self._call(call, f"{field}.tool_calls[{at}]") for at, call in enumerate(message.tool_calls or ())]
        if calls and self._signs and calls[0].thought_signature is None:
            calls[0].thought_signature = NO_SIGNATURE
        self._say("model", parts + calls)

    def _call(self, call: form.ToolCall, field: str) -> SentPart:
        name = call.function.name
        self._calls[call.id] = (len(self._calls), name)
        args = _object(call.function.arguments or "{}", f"{field}.function.arguments")
        return SentPart(
            function_call=SentCall(id=id_to_send(call.id), name=name, args=args),
            thought_signature=_signature(call.extra_content, f"{field}.extra_content"),
        )

    def _result(self, message: form.Message, field: str) -> None:
        call_id = message.tool_call_id or ""
        if call_id not in self._calls:
            param = f"{field}.tool_call_id"
            raise InvalidRequest(f"`{param}` names no call of an earlier message.", param=param)
        place, name = self._calls[call_id]
        parts = list(self._parts(message, field))
        text = "\n".join(part.text for part in parts if part.text is not None)
        media = [
            ResultPart(inline_data=part.inline_data, file_data=part.file_data) for part in parts if part.text is None
        ]
        told = FunctionResponse(
            id=id_to_send(call_id), name=name, response=_response(text, is_error=message.is_error), parts=media or None
        )
        self._results.append((place, SentPart(function_response=told)))

    def _answer(self) -> None:
        """One turn of all results that came together, in the order of their calls: that tells them apart, too."""
        if self._results:
            self._results.sort(key=lambda result: result[0])
            self._turns.append(Content(role="user", parts=[part for _, part in self._results]))
            self._results = []

    def _say(self, side: _Side, parts: list[SentPart]) -> None:
        last = self._turns[-1] if self._turns else None
        if last is not None and last.role == side and last.parts[-1].function_response is None:
            last.parts += parts
        elif parts:
            self._turns.append(Content(role=side, parts=parts))

    def _refuse(self, message: form.Message, field: str, *names: str) -> None:
        for name in names:
            if form.given(getattr(message, name)) not in (None, msgspec.UNSET):
                self._ask.cannot(f"{field}.{name}")

    def _parts(self, message: form.Message, field: str) -> Iterator[SentPart]:
        content = message.content
        if isinstance(content, str):
            yield SentPart(text=content)
            return
        for place, part in enumerate(content or ()):
            try:
                yield self._part(part)
            except NotTaken as reason:
                self._ask.cannot(f"{field}.content[{place}]", str(reason))

    def _part(self, part: form.Part) -> SentPart:
        match part:
            case form.Text():
                return SentPart(text=part.text)
            case form.Refusal():
                return SentPart(text=part.refusal)
            case form.Audio():
                return SentPart(inline_data=audio_of(part))
            case form.Image():
                return _of(image_of(part, self._allowed))
            case form.File():
                return _of(file_of(part, self._allowed))


def _of(data: Blob | FileData) -> SentPart:
    return SentPart(inline_data=data) if isinstance(data, Blob) else SentPart(file_data=data)


def _object(text: str, field: str) -> msgspec.Raw:
    """The text of a JSON object as it is. Raises InvalidRequest."""
    try:
        _decode_object(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{field}` must be a JSON object.", param=field) from None
    return msgspec.Raw(text.encode())


def _response(text: str, *, is_error: bool) -> msgspec.Raw | dict[str, str]:
    """The result of a function: a JSON object as it is, any other text as the reference has it."""
    if is_error:
        return {"error": text}
    try:
        return _object(text, "")
    except InvalidRequest:
        return {"output": text}


def _signature(extra: msgspec.Raw | msgspec.UnsetType, field: str) -> str | None:
    """``google.thought_signature`` of an ``extra_content``. Raises InvalidRequest."""
    extra = form.given(extra)
    if extra is msgspec.UNSET:
        return None
    try:
        found = _decode_extra(extra)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{field}` must be as it came with an answer.", param=field) from None
    return None if found.google is None else found.google.thought_signature
