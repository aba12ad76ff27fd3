"""Whether answers are judged rightly: whole, in pieces, too large, and of no known form."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai.structured import Verdict, compile_schema, response_format
from gateway.model import AnswerRule
from gateway.scenarios import AnswerChecks, StreamWatch

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GOOD = '{"city": "Köln"}'
DONE = b"data: [DONE]\n\n"


class Counts:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def answer_checked(self, scenario: str, result: str) -> None:
        """See Counter."""
        self.seen.append((scenario, result))


def rule(schema: Any = SCHEMA) -> AnswerRule:
    """A rule with this schema."""
    return AnswerRule(schema=msgspec.json.encode(schema), response_format=b"{}")


def body(*messages: dict[str, Any] | str) -> bytes:
    """A whole completion with these messages, each given as itself or as its text."""
    choices = [
        {"index": place, "message": {"content": each} if isinstance(each, str) else each}
        for place, each in enumerate(messages)
    ]
    return json.dumps({"choices": choices}).encode()


def event(text: str | None, index: int = 0, end: bytes = b"\n", **delta: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": index, "delta": {"content": text} | delta, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + end + end


def judged(answer: bytes, schema: Any = SCHEMA, max_bytes: int = 1000) -> Verdict:
    """The verdict on a whole answer."""
    return AnswerChecks(max_bytes, Counts()).judge(rule(schema), answer)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (body(GOOD), "valid"),
        (body(GOOD, GOOD), "valid"),
        (body(GOOD, '{"city": 5}'), "invalid"),
        (body("{}"), "invalid"),
        (body(""), "invalid"),
        (body("The city is Köln."), "invalid"),
        (body(GOOD + "x"), "invalid"),
        (body("```json\n" + GOOD + "\n```"), "invalid"),
        (body("[" * 100_000), "invalid"),
        (body({"content": None}), "invalid"),
        (body({"content": None, "refusal": "No."}), "invalid"),
        (body(), "invalid"),
        (body({"content": None, "tool_calls": [{"id": "1"}]}), "unchecked"),
        (body({"content": GOOD, "tool_calls": []}), "valid"),
        (body({"content": GOOD, "tool_calls": None}), "valid"),
        (body(GOOD, {"content": None, "tool_calls": [{"id": "1"}]}), "unchecked"),
        (body({"content": [{"type": "text", "text": GOOD}]}), "unchecked"),
        (b'{"choices":[{"message":{"content":"\xff"}}]}', "unchecked"),
        (b'{"choices":"none"}', "unchecked"),
    ],
)
def test_whole_answers(answer: bytes, verdict: Verdict) -> None:
    """The text of each choice must be JSON that conforms; what a client handles otherwise is not judged."""
    assert judged(answer, max_bytes=500_000) == verdict


def test_more_text_than_is_looked_at_is_not_judged() -> None:
    """The bound is on the text of all choices together, in bytes."""
    assert judged(body(GOOD), max_bytes=len(GOOD.encode())) == "valid"
    assert judged(body(GOOD), max_bytes=len(GOOD.encode()) - 1) == "unchecked"
    assert judged(body(GOOD, GOOD), max_bytes=len(GOOD.encode()) + 1) == "unchecked"


def test_what_nests_too_deep_is_invalid() -> None:
    """It is no fault of the gateway."""
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}}
    assert judged(body('{"n":' * 500 + "1" + "}" * 500), schema, max_bytes=100_000) == "valid"
    assert judged(body('{"n":' * 5000 + "1" + "}" * 5000), schema, max_bytes=100_000) == "invalid"


def test_streams() -> None:
    """The texts of a stream are put together by choice and judged at its end; one that broke off is not."""
    counts = Counts()
    checks = AnswerChecks(1000, counts)

    def watched(*events: bytes, complete: bool = True) -> StreamWatch:
        watch = checks.watch("s", rule())
        for each in events:
            watch.feed(each)
        watch.close(complete=complete)
        return watch

    watched(event(None, role="assistant"), event('{"ci'), event('ty": "x"', 0), event("}"), DONE)
    watched(event('{"city":', 0) + event('{"city":5', 1), event('"a"}', 0) + event("}", 1) + DONE)
    watched(event(GOOD, end=b"\r\n"), b": comment\n\n", b"event: x\n" + event(""), b"data:[DONE]\n\n")
    watched(event(GOOD, end=b"\r"), b"data: [DONE]\r\r")
    watched(event(GOOD), complete=False)
    watched(event(None, tool_calls=[{"index": 0}]), DONE)
    watched(b"data: nonsense\n\n", event(GOOD), DONE)
    watched(DONE)
    assert [result for _, result in counts.seen] == [
        "valid", "invalid", "valid", "valid", "unchecked", "unchecked", "unchecked", "invalid"
    ]  # fmt: skip


def test_a_long_stream_is_not_kept() -> None:
    """Beyond the bound nothing more of it is held."""
    watch = AnswerChecks(1000, Counts()).watch("s", rule())
    for _ in range(11):
        watch.feed(event("x" * 100))
    assert not watch.text.is_whole
    assert not watch.text._texts


@given(
    pieces=st.lists(st.text(max_size=5), max_size=8),
    schema=st.sampled_from([SCHEMA, {"type": "integer"}, {"minLength": 0}]),
)
def test_a_stream_is_judged_as_its_whole(pieces: list[str], schema: Any) -> None:
    """However a text is cut into events, the verdict is that on the whole text."""
    checks = AnswerChecks(1000, Counts())
    watch = checks.watch("s", rule(schema))
    for piece in ["", *pieces]:
        watch.feed(event(piece))
    assert checks.judge_stream(watch) == checks.judge(rule(schema), body("".join(pieces)))


@given(data=st.binary(max_size=60) | st.text(max_size=40).map(lambda text: b"data: " + text.encode() + b"\n\n"))
def test_nothing_that_a_backend_says_breaks_the_check(data: bytes) -> None:
    """Any bytes are judged somehow."""
    checks = AnswerChecks(1000, Counts())
    watch = checks.watch("s", rule())
    watch.feed(data)
    assert checks.judge_stream(watch) in ("invalid", "unchecked")
    assert checks.judge(rule(), data) in ("invalid", "unchecked")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "anyOf"),
        ({"$ref": "http://127.0.0.1:1/x"}, "Retrieval is disabled"),
        ({"$ref": "file:///etc/passwd"}, "Retrieval is disabled"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"pattern": "(a+)+(?=b)"}, "regex"),
        ({"$schema": "http://127.0.0.1:1/meta"}, "meta-schema"),
    ],
)
def test_schemas_that_cannot_be_used(schema: Any, reason: str) -> None:
    """Nothing is fetched for a schema, and no pattern may take long; the reason is one short line."""
    with pytest.raises(ValueError, match=reason) as caught:
        compile_schema(schema)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200


def test_how_an_answer_is_asked_for() -> None:
    """The name is the scenario's in the letters that OpenAI allows."""
    asked = json.loads(response_format("support.v2" + "x" * 80, SCHEMA, strict=True))
    assert asked["type"] == "json_schema"
    assert asked["json_schema"] == {"name": ("support_v2" + "x" * 80)[:64], "schema": SCHEMA, "strict": True}
    assert "strict" not in json.loads(response_format("s", SCHEMA, strict=False))["json_schema"]


def test_many_schemas_are_forgotten_in_turn() -> None:
    """What is kept compiled is bounded."""
    checks = AnswerChecks(1000, Counts())
    for number in range(1100):
        assert checks.judge(rule({"maximum": number}), body(str(number))) == "valid"
    assert len(checks._compiled) <= 1000
