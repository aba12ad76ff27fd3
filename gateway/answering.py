"""An admitted request answered: the call of its backends, and its answer held against what the scenario promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from gateway.cleanup import Cleanup
from gateway.errors import GatewayError
from gateway.model import AnswerRule, ChatRequest
from gateway.reply import GONE, Asked, settle
from gateway.scenarios import AnswerChecks, StreamWatch
from gateway.telemetry import RequestRecord
from gateway.upstream.attempts import Attempts
from gateway.upstream.call import Answer


class Answering:
    """Holds nothing of any request."""

    def __init__(self, caller: Attempts[ChatRequest, Answer], answers: AnswerChecks) -> None:
        self._caller = caller
        self._answers = answers

    def call(self, asked: Asked, request: ChatRequest, cleanup: Cleanup) -> Awaitable[Answer]:
        """The answer to ``request``, with its verdict where it is whole; to be awaited at once. Raises GatewayError.

        What a stream holds is left on ``cleanup``.
        """
        rule = asked.scenario.answer
        if rule is None:
            return self._caller.call(asked.plan, request, asked.record, cleanup)
        return self._judged(rule, asked, request, cleanup)

    async def _judged(self, rule: AnswerRule, asked: Asked, request: ChatRequest, cleanup: Cleanup) -> Answer:
        answer = await self._caller.call(asked.plan, request, asked.record, cleanup)
        if answer.facts is None:
            return answer
        cleanup.push(_charge_known, asked, answer)
        again = partial(self._caller.call, asked.plan, request, asked.record, cleanup)
        return await self._checked(rule, answer, asked.record, again)

    def watch(
        self, asked: Asked, cleanup: Cleanup, is_complete: Callable[[], bool] | None = None
    ) -> Callable[[bytes], None] | None:
        """What is to be told of a stream's events; None where nobody wants to know.

        ``is_complete`` says at the close whether all was said; None: where the caller has had it all.
        """
        if asked.scenario.answer is None:
            return None
        watch = self._answers.watch(asked.scenario.name, asked.scenario.answer)
        cleanup.push(_end_watch, watch, is_complete or partial(_is_complete, asked.record))
        return watch.feed

    def conforms(self, rule: AnswerRule, body: bytes) -> bool:
        """Whether a whole answer is as the scenario promises."""
        return self._answers.judge(rule, body) == "valid"

    async def _checked(
        self, rule: AnswerRule, answer: Answer, record: RequestRecord, again: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """The answer with its verdict; a second one where the first does not conform and the scenario wants that."""
        verdict = self._answers.judge(rule, answer.body or b"")
        retried = rule.retry and verdict == "invalid"
        if retried:
            try:
                second = await again()
            except GatewayError as error:  # an answer that does not conform is better than none
                record.detail = error.detail or ""
                second = answer
            if second.facts is not None and second is not answer:
                second.before, answer = answer, second
                verdict = self._answers.judge(rule, answer.body or b"")
            record.backend, record.provider = answer.backend.name, answer.backend.provider
            record.response_model = answer.backend.model or ""
        self._answers.count(record.scenario, verdict, retried=retried)
        answer.verdict = verdict
        return answer


def _charge_known(asked: Asked, answer: Answer) -> None:
    """Charge an answer whose successor never came, where no reservation is charged for both: there is none, or the
    caller left while the second call waited for a backend.
    """
    if asked.lease.reserved is None or asked.record.left_queue:
        settle(asked, answer, GONE)


def _is_complete(record: RequestRecord) -> bool:
    return record.stream_end_reason == "complete"


def _end_watch(watch: StreamWatch, is_complete: Callable[[], bool]) -> None:
    watch.close(complete=is_complete())
