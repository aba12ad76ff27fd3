"""Whether answers are what their scenario promises: judged, and counted once for each call.

Invariant: no more text of an answer is looked at, or kept of a stream, than ``max_bytes``. Whether an answer is asked
for again is the pipeline's to do; what the caller is told of it is in docs/scenarios.md.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from gateway.dialects.openai.structured import AnswerText, Conforms, Verdict, compile_schema
from gateway.model import AnswerRule

_COMPILED_MAX = 1_000
"""Schemas that are kept compiled; beyond it all are compiled anew."""

Result = Literal["valid", "invalid", "unchecked", "valid_after_retry", "invalid_after_retry", "unchecked_after_retry"]

_AFTER_RETRY: dict[Verdict, Result] = {
    "valid": "valid_after_retry",
    "invalid": "invalid_after_retry",
    "unchecked": "unchecked_after_retry",
}


class Counter(Protocol):
    """What answers are counted in; see ``gateway.telemetry.Metrics``."""

    def answer_checked(self, scenario: str, result: str) -> None:
        """The answer of a call was held against the scenario's schema."""


class AnswerChecks:
    """Judges the answers of one process; ``max_bytes`` bounds the text of one."""

    def __init__(self, max_bytes: int, counter: Counter) -> None:
        self._max_bytes = max_bytes
        self._counter = counter
        self._compiled: dict[bytes, Conforms] = {}

    def judge(self, rule: AnswerRule, body: bytes) -> Verdict:
        """Tell whether a whole chat completion conforms."""
        text = AnswerText(self._max_bytes)
        text.read(body)
        return text.judge(self._conforms(rule))

    def count(self, scenario: str, verdict: Verdict, *, retried: bool = False) -> None:
        """Count the answer that a caller gets."""
        self._counter.answer_checked(scenario, _AFTER_RETRY[verdict] if retried else verdict)

    def watch(self, scenario: str, rule: AnswerRule) -> StreamWatch:
        """Follow a stream."""
        return StreamWatch(self, scenario, rule, AnswerText(self._max_bytes))

    def judge_stream(self, watch: StreamWatch) -> Verdict:
        """Tell whether a stream that has come to its end conforms."""
        return watch.text.judge(self._conforms(watch.rule))

    def _conforms(self, rule: AnswerRule) -> Conforms:
        found = self._compiled.get(rule.schema)
        if found is None:
            if len(self._compiled) >= _COMPILED_MAX:
                self._compiled.clear()
            found = self._compiled[rule.schema] = compile_schema(msgspec.json.decode(rule.schema))
        return found


class StreamWatch:
    """The text of a stream that passes by; ``close`` when it has ended."""

    __slots__ = ("_checks", "_scenario", "rule", "text")

    def __init__(self, checks: AnswerChecks, scenario: str, rule: AnswerRule, text: AnswerText) -> None:
        self._checks = checks
        self._scenario = scenario
        self.rule = rule
        self.text = text

    def feed(self, events: bytes) -> None:
        """Note what is passed on: whole events."""
        self.text.feed(events)

    def close(self, *, complete: bool) -> None:
        """Count the stream; one that was not ``complete`` cannot be judged."""
        self._checks.count(self._scenario, self._checks.judge_stream(self) if complete else "unchecked")
