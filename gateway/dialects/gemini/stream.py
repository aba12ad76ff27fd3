"""Streamed answers of Gemini as events of a chat completion.

Invariants:
- However the stream is cut into pieces, the same is told; each event as soon as it has come, and nothing twice.
- How an answer ended, and its usage, is told at the end of the stream: Gemini may say either more than once, and the
  last one counts. A stream that ends while an answer has no end is cut.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent (``alt=sse``).
"""

from __future__ import annotations

import msgspec

from gateway.clock import wall
from gateway.dialects import form
from gateway.dialects.gemini.errors import failure_of, public_error
from gateway.dialects.gemini.reply import (
    call_of,
    candidates_of,
    completion_id,
    extra_of,
    failed_answer,
    finish_of,
    has_failed,
    logprobs_of,
    usage_of,
    used_of,
)
from gateway.dialects.gemini.schema import Candidate, Response, ToldPart, UsageMetadata, decode_response
from gateway.dialects.openai.errors import error_event
from gateway.dialects.openai.stream import ChatStream
from gateway.dialects.sse import EventReader
from gateway.errors import AttemptFailed

_CANDIDATES_MAX = 128  # as many as a request may ask for


class _Answer:
    """One of the answers, as far as it was told."""

    __slots__ = ("begun", "calls", "reason", "said")

    def __init__(self) -> None:
        self.begun = False  # its role was told
        self.said = False
        self.calls = 0
        self.reason = ""


class GeminiStream:
    """A ``Translator``. ``chat`` is told of the usage as it grows, so that a stream that is cut is charged for it."""

    __slots__ = ("_answers", "_chat", "_created", "_failed", "_id", "_model", "_reader", "_usage")

    def __init__(self, max_event_bytes: int, chat: ChatStream) -> None:
        self._chat = chat
        self._reader = EventReader(max_event_bytes)
        self._answers: dict[int, _Answer] = {}
        self._usage: UsageMetadata | None = None
        self._failed = False
        self._id = self._model = ""
        self._created = int(wall())

    def feed(self, data: bytes) -> bytes:
        """Take the next piece, cut anywhere; returns whole events. Raises AttemptFailed."""
        told: list[bytes] = []
        for event in self._reader.feed(data):
            self._event(event.data, told)
        return b"".join(told)

    def end(self) -> bytes:
        """How the answers ended, the usage and the mark of the end. Raises AttemptFailed where the stream was cut."""
        told: list[bytes] = []
        for event in self._reader.end():
            self._event(event.data, told)
        if self._failed:
            return b"".join(told)
        if not self._answers or not all(answer.reason for answer in self._answers.values()):
            raise AttemptFailed("reset", "the stream ended before its answer")
        for index, answer in self._answers.items():
            self._finish(index, answer, told)
        if self._usage is not None:
            told.append(form.encode_event(self._chunk([], usage_of(self._usage))))
        told.append(form.DONE)
        return b"".join(told)

    def _event(self, data: bytes, told: list[bytes]) -> None:
        if self._failed:
            return
        try:
            response = decode_response(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AttemptFailed("protocol_error", f"an event is no answer of Gemini: {error}") from None
        if response.error is not None:
            if not self._answers:
                raise failure_of(response.error)
            self._failed = True
            told.append(error_event(public_error(response.error)))
            return
        self._read(response, told)

    def _read(self, response: Response, told: list[bytes]) -> None:
        if not self._id:
            self._id = completion_id(response)
        self._model = response.model_version or self._model
        if response.usage_metadata is not None:
            self._note(response.usage_metadata)
        feedback = response.prompt_feedback
        if not response.candidates and (feedback is None or feedback.block_reason is None):
            return  # usage alone, say
        for place, candidate in enumerate(candidates_of(response)):
            index = candidate.index if candidate.index is not None else place
            answer = self._answers.get(index)
            if answer is None:
                if not 0 <= index < _CANDIDATES_MAX:
                    raise AttemptFailed("protocol_error", "a candidate that was not asked for")
                answer = self._answers[index] = _Answer()
            self._candidate(index, candidate, answer, told)

    def _note(self, told: UsageMetadata) -> None:
        self._usage = told
        if told.candidates_token_count is not None:  # before that it says nothing of the output
            self._chat.usage = used_of(told)

    def _candidate(self, index: int, candidate: Candidate, answer: _Answer, told: list[bytes]) -> None:
        answer.reason = candidate.finish_reason or answer.reason
        parts = candidate.content.parts if candidate.content is not None else None
        logprobs = candidate.logprobs_result
        for part in parts or ():
            delta = self._delta(part, answer)
            if delta is not None:
                told.append(self._piece(index, answer, delta))
        if logprobs is not None:
            self._begin(answer, delta := form.Told())
            choice = form.Choice(index=index, delta=delta, logprobs=logprobs_of(logprobs))
            told.append(form.encode_event(self._chunk([choice])))

    def _delta(self, part: ToldPart, answer: _Answer) -> form.Told | None:
        """What a part adds; None where it says nothing."""
        call, signature = part.function_call, part.thought_signature
        if call is not None:
            answer.said = True
            answer.calls += 1
            return form.Told(tool_calls=[call_of(call, answer.calls - 1, signature)])
        if not part.text and signature is None:
            return None
        delta = form.Told()
        if part.text and part.thought:
            delta.reasoning_content = part.text
        elif part.text:
            answer.said = True
            delta.content = part.text
        if signature is not None:
            delta.extra_content = extra_of(signature)
        return delta

    def _piece(self, index: int, answer: _Answer, delta: form.Told) -> bytes:
        self._begin(answer, delta)
        return form.encode_event(self._chunk([form.Choice(index=index, delta=delta)]))

    @staticmethod
    def _begin(answer: _Answer, delta: form.Told) -> None:
        if not answer.begun:
            answer.begun = True
            delta.role = "assistant"
            if delta.content is msgspec.UNSET and delta.tool_calls is msgspec.UNSET:
                delta.content = ""

    def _finish(self, index: int, answer: _Answer, told: list[bytes]) -> None:
        """Raises AttemptFailed where an answer says nothing because the model failed."""
        if not answer.said and has_failed(answer.reason):
            raise failed_answer(answer.reason)
        delta = form.Told()
        self._begin(answer, delta)
        finish = finish_of(answer.reason, has_calls=answer.calls > 0)
        told.append(form.encode_event(self._chunk([form.Choice(index=index, delta=delta, finish_reason=finish)])))

    def _chunk(self, choices: list[form.Choice], usage: form.UsageForm | None = None) -> form.Completion:
        return form.Completion(
            id=self._id,
            object=form.CHUNK,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=msgspec.UNSET if usage is None else usage,
        )
