"""A call that is split and joined gives what one call would have given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.batches import join, split
from gateway.dialects.openai.operations import read_operation
from gateway.errors import AttemptFailed, InvalidRequest
from gateway.model import ChatRequest, Operation


def request(operation: Operation = "embeddings", **fields: Any) -> ChatRequest:
    """One with these fields."""
    return read_operation(operation, json.dumps({"model": "m", **fields}).encode(), 100)


def told(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields, decoded."""
    return {name: json.loads(bytes(raw)) for name, raw in fields.items()}


ITEMS = st.one_of(st.lists(st.text(), min_size=1), st.lists(st.lists(st.integers(0, 9)), min_size=1))


@settings(max_examples=300, deadline=None)
@given(ITEMS, st.integers(1, 5))
def test_parts_hold_every_item_once_in_order(items: list[Any], size: int) -> None:
    """Whatever is in the texts."""
    parts = split(request(input=items, user="u"), size, 10_000)
    if len(items) <= size:
        assert parts is None
        return
    assert parts is not None
    assert [item for part in parts for item in told(part)["input"]] == items
    assert all(0 < len(told(part)["input"]) <= size and told(part)["user"] == "u" for part in parts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.integers(1, 4), st.integers(1, 9))
def test_ranking_of_parts_is_that_of_the_whole(scores: list[float], size: int, top: int) -> None:
    """By score, cut at ``top_n``."""
    asked = request("rerank", query="q", documents=[str(score) for score in scores], top_n=top)
    parts = split(asked, size, 100)
    if parts is None:
        return
    bodies = []
    for part in parts:
        results = [{"index": i, "relevance_score": float(d)} for i, d in enumerate(told(part)["documents"])]
        body = {"results": sorted(results, key=lambda each: -each["relevance_score"]), "usage": {"total_tokens": 3}}
        bodies.append(json.dumps(body).encode())
    whole = json.loads(join(asked, bodies, size))
    best = sorted(enumerate(scores), key=lambda each: -each[1])[:top]
    assert [each["relevance_score"] for each in whole["results"]] == [score for _, score in best]
    assert all(scores[each["index"]] == each["relevance_score"] for each in whole["results"])
    assert whole["usage"] == {"total_tokens": 3 * len(parts)}


@pytest.mark.parametrize("given_input", ["text", list(range(50))])
def test_one_input_is_never_split(given_input: Any) -> None:
    """A text, or the tokens of one."""
    assert split(request(input=given_input), 1, 10) is None


@pytest.mark.parametrize("items", [["a", 1], ["a", None], [[1], {"a": 1}], ["a", True]])
def test_items_that_are_none_are_refused(items: list[Any]) -> None:
    """By the field."""
    with pytest.raises(InvalidRequest) as caught:
        split(request(input=items), 1, 10)
    assert caught.value.param == "input"


def test_there_is_a_bound_of_items() -> None:
    """Beyond which nothing is made of them."""
    for asked in (request(input=["a"] * 11), request("rerank", query="q", documents=[{"text": "a"}] * 11)):
        with pytest.raises(InvalidRequest) as caught:
            split(asked, 2, 10)
        assert caught.value.code == "too_many_items"


@pytest.mark.parametrize("body", [b"{}", b'{"data":[{}]}', b'{"data":[{"index":"x"}]}', b"[]", b"no"])
def test_answers_that_cannot_be_joined(body: bytes) -> None:
    """Are none."""
    with pytest.raises(AttemptFailed):
        join(request(input=["a", "b"]), [b'{"data":[{"index":0}]}', body], 1)
