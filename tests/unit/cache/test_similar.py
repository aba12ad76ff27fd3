"""The index of similar questions, and what may be compared at all."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import msgspec
import pytest

from gateway.cache.key import TEXT_CHARS_MAX, Question, Ways
from gateway.cache.similar import DIMENSIONS_MAX, Bucket, IndexBounds, SimilarAnswers, packed
from gateway.dialects.openai.request import read_chat_request
from gateway.model import Backend, CachePolicy, Scenario, SimilarityPolicy, Target

BACKEND = Backend(name="qwen", provider="openai", origin=None)
SIMILAR = CachePolicy(similar=SimilarityPolicy(backend=BACKEND))
SCENARIO = Scenario(name="faq", targets=(Target(backend=BACKEND, weight=1),), cache=SIMILAR)


def at(degrees: float) -> bytes:
    """A vector of two numbers."""
    return packed([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def test_the_nearest_is_found_with_its_similarity() -> None:
    """The cosine of the angle, whatever the lengths."""
    bucket = Bucket(10)
    assert bucket.nearest(at(0)) is None
    for degrees in (0, 40, 90):
        bucket.add(
            b"%d" % degrees,
            packed([7 * number for number in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))]),
        )
    found = bucket.nearest(at(50))
    assert found is not None
    assert found.digest == b"40"
    assert found.similarity == pytest.approx(math.cos(math.radians(10)), abs=1e-3)


def test_the_latest_of_equals_is_taken() -> None:
    """It is the fresher answer."""
    bucket = Bucket(10)
    for digest in (b"old", b"new"):
        bucket.add(digest, at(10))
    found = bucket.nearest(at(10))
    assert found is not None
    assert found.digest == b"new"


def test_a_bucket_is_bounded_and_of_one_length() -> None:
    """The oldest goes; what cannot be compared is left out."""
    bucket = Bucket(2)
    for number in range(5):
        bucket.add(b"%d" % number, at(number * 20))
    for odd in (b"", b"123", packed([1.0, 2.0, 3.0]), b"\0" * (4 * DIMENSIONS_MAX + 4)):
        bucket.add(b"odd", odd)
    assert len(bucket) == 2
    found = bucket.nearest(at(0))
    assert found is not None
    assert found.digest == b"3"
    assert bucket.nearest(packed([1.0, 2.0, 3.0])) is None
    for wrong in ([], [0.0] * (DIMENSIONS_MAX + 1)):
        with pytest.raises(ValueError, match="numbers"):
            packed(wrong)


@pytest.mark.parametrize(
    "numbers", [[0.0] * 8, [1e-30] * 8, [1e30] * 8, [1e39, *[0.0] * 7], [math.inf] * 8, [math.nan]]
)
def test_a_vector_without_a_direction_is_like_no_other(numbers: list[float]) -> None:
    """A broken model of embeddings must not make any question the same as any other."""
    with pytest.raises(ValueError, match="length"):
        packed(numbers)


def question(tenant: str = "acme", scenario: Scenario = SCENARIO, **fields: Any) -> Question | None:
    """What may be compared of a request."""
    body = {"model": "faq", "messages": [{"role": "user", "content": "How do I pay?"}]} | fields
    way = Ways().of(tenant, scenario, read_chat_request(json.dumps(body).encode(), 100), b"")
    assert way is not None
    return way.question


def messages(*pairs: tuple[str, Any]) -> dict[str, Any]:
    """The field."""
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_only_the_text_of_the_last_user_message_may_differ() -> None:
    """Then the bucket is the same; whatever else differs makes another one."""
    first = question(
        **messages(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "How to pay?"))
    )
    assert first is not None
    assert first.text == "How to pay?"
    same = question(**messages(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Can I pay?")))
    assert same is not None
    assert same.bucket == first.bucket
    others = [
        question(**messages(("system", "Be rude."), ("user", "Hi"), ("assistant", "Hello"), ("user", "How to pay?"))),
        question(**messages(("system", "Be kind."), ("user", "Ho"), ("assistant", "Hello"), ("user", "How to pay?"))),
        question(**messages(("system", "Be kind."), ("assistant", "Hello"), ("user", "How to pay?"))),
        question(),
        question(temperature=0.5),
        question(model="alias"),
        question(tenant="beta"),
        question(scenario=msgspec.structs.replace(SCENARIO, name="other")),
        question(
            scenario=msgspec.structs.replace(
                SCENARIO,
                cache=msgspec.structs.replace(
                    SIMILAR, similar=SimilarityPolicy(backend=msgspec.structs.replace(BACKEND, model="m"))
                ),
            )
        ),
    ]
    buckets = {each.bucket for each in others if each is not None}
    assert len(buckets) == len(others)
    assert first.bucket not in buckets


@pytest.mark.parametrize(
    "fields",
    [
        messages(("user", [{"type": "text", "text": "hi"}])),
        messages(("system", "only")),
        messages(("user", "")),
        messages(("user", "x" * (TEXT_CHARS_MAX + 1))),
        {"messages": ["odd"]},
    ],
)
def test_what_is_no_plain_question_is_not_compared(fields: dict[str, Any]) -> None:
    """Images, no user at all, nothing, too much, nonsense: the same request may still have its answer."""
    assert question(**fields) is None


class FakeStream:
    """A lane to one stream per key."""

    def __init__(self) -> None:
        self.entries: dict[bytes, list[list[Any]]] = {}
        self.asked: list[tuple[Any, ...]] = []

    def send(self, *parts: Any) -> asyncio.Future[Any]:
        """XADD and XRANGE."""
        self.asked.append(parts)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        held = self.entries.setdefault(parts[1], [])
        if parts[0] == "XADD":
            held.append([b"%06d" % len(held), list(parts[5:])])
        start = parts[2] if parts[0] == "XRANGE" else b"-"
        later = [each for each in held if start == b"-" or each[0] > start[1:]]
        future.set_result(later[: parts[5]] if parts[0] == "XRANGE" else None)
        return future


def test_an_index_is_read_on_from_where_it_was_and_bounded() -> None:
    """What another process added is found; tenants have indexes of their own, each with its bound."""

    async def main() -> None:
        lane = FakeStream()
        one, other = (SimilarAnswers(lane, IndexBounds(bucket_max=300, tenant_max=310)) for _ in range(2))
        way = Ways().of(
            "acme",
            SCENARIO,
            read_chat_request(json.dumps({"model": "faq", **messages(("user", "a"))}).encode(), 9),
            b"",
        )
        assert way is not None
        assert await one.nearest(way, at(0)) is None
        for _ in range(299):
            other.add(way, at(90))
        other.add(msgspec.structs.replace(way, digest=b"mine"), at(1))
        found = await one.nearest(way, at(0))
        assert found is not None
        assert found.digest == b"mine"
        before = len(lane.asked)
        await one.nearest(way, at(0))
        assert len(lane.asked) == before + 1
        foreign = msgspec.structs.replace(way, tenant="beta")
        assert await one.nearest(foreign, at(0)) is None
        assert way.question is not None
        second = msgspec.structs.replace(way, question=msgspec.structs.replace(way.question, bucket=b"second"))
        for _ in range(20):
            other.add(second, at(5))
        assert await one.nearest(second, at(5)) is not None
        assert sum(map(len, one._tenants["acme"].values())) <= 310

    asyncio.run(main())


def test_questions_that_nobody_asks_again_leave_nothing_behind() -> None:
    """Each turn of a conversation has a bucket of its own, in which nothing is found; calls at once do not mind."""

    async def main() -> None:
        index = SimilarAnswers(FakeStream(), IndexBounds())
        asked = {"model": "faq", **messages(("user", "a"))}
        way = Ways().of("acme", SCENARIO, read_chat_request(json.dumps(asked).encode(), 9), b"")
        assert way is not None
        assert way.question is not None
        for turn in range(100):
            other = msgspec.structs.replace(
                way, question=msgspec.structs.replace(way.question, bucket=b"%d" % (turn // 2))
            )
            assert not any(await asyncio.gather(index.nearest(other, at(0)), index.nearest(other, at(0))))
        assert not index._tenants

    asyncio.run(main())
