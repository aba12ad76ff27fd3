"""The key of an answer: different wherever the answer may differ, the same however its JSON is written."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.cache.canonical import Canonical, Unclear
from gateway.cache.key import Way, Ways, Writing, writing_of
from gateway.dialects.openai.request import read_chat_request
from gateway.model import Backend, CachePolicy, Scenario, Target

BACKEND = Backend(name="qwen", provider="openai", origin=None)
SCENARIO = Scenario(name="chat", targets=(Target(backend=BACKEND, weight=1),), cache=CachePolicy())
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**6), max_value=10**6),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


class Writer:
    """Writes JSON in one of its many ways, chosen by ``draw``."""

    def __init__(self, draw: Any) -> None:
        self._draw: Any = draw

    def value(self, value: Any) -> str:
        """A value."""
        space: str = self._draw(st.sampled_from(["", " ", "\n\t", "  "]))
        if isinstance(value, dict):
            items = self._draw(st.permutations(list(value.items())))
            members = ",".join(f"{space}{self.text(name)}{space}:{self.value(item)}" for name, item in items)
            return f"{space}{{{members}{space}}}"
        if isinstance(value, list):
            return f"{space}[{','.join(map(self.value, value))}{space}]"
        if isinstance(value, str):
            return space + self.text(value)
        if isinstance(value, bool) or value is None:
            return space + json.dumps(value) + space
        return space + self.number(Decimal(value)) + space

    def text(self, text: str) -> str:
        """A string, as it is or with escapes."""
        plain = json.dumps(text, ensure_ascii=self._draw(st.booleans()))
        return plain.replace("/", "\\/") if self._draw(st.booleans()) else plain

    def number(self, number: Decimal) -> str:
        """A number, whole, with a fraction or with an exponent."""
        sign, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)
        whole = f"{'-' if sign else ''}{int(''.join(map(str, digits)) or '0')}"
        forms = [f"{whole}e{exponent}", f"{whole}.0E{exponent:+d}"]
        if number:
            forms.append(f"{whole}00e{exponent - 2}")
        if exponent == 0:
            forms += [whole, f"{whole}.000"]
        if exponent < 0:
            forms.append(f"{number:f}")
        return str(self._draw(st.sampled_from(forms)))


def way(
    text: str,
    *,
    tenant: str = "acme",
    scenario: Scenario = SCENARIO,
    cache_control: bytes = b"",
    ways: Ways | None = None,
    route: Sequence[str] = (),
) -> Way:
    """The way of a request."""
    request = read_chat_request(text.encode(), 1000)
    found = (ways or Ways()).of(tenant, scenario, request, cache_control, route)
    assert found is not None
    return found


def body(**fields: Any) -> dict[str, Any]:
    """A request."""
    return {"model": "chat", "messages": [{"role": "user", "content": "hi"}]} | fields


@given(st.data(), st.dictionaries(st.sampled_from(["stop", "tools", "x", "temperature", "user"]), VALUES, max_size=4))
def test_writing_makes_no_difference(data: st.DataObject, fields: dict[str, Any]) -> None:
    """White space, order, escapes and forms of numbers; the same maker of keys has seen other requests before."""
    ways = Ways()
    write = Writer(data.draw).value
    one, two = (way(write(body(**fields)), ways=ways) for _ in range(2))
    assert one == two == way(write(body(**fields)))


@given(st.data(), VALUES, VALUES)
def test_another_value_is_another_key(data: st.DataObject, one: Any, two: Any) -> None:
    """At any depth, in any field, and beside a field that is missing."""
    assume(not _same(one, two))
    write = Writer(data.draw).value
    keys = [way(write(body(**fields))).digest for fields in ({"x": one}, {"x": two}, {}, {"y": one})]
    assert len(set(keys)) == 4
    deep = [way(write(body(messages=[{"role": "user", "content": "hi", "x": value}]))).digest for value in (one, two)]
    assert deep[0] != deep[1]


def _same(one: Any, two: Any) -> bool:
    """Whether two values are the same JSON: true is no number, 1 and 1.0 are one."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    return bool(one == two)


@given(TEXT, TEXT)
def test_no_two_tenants_share_a_key(one: str, two: str) -> None:
    """Whatever they are called: neither an answer nor a call in flight."""
    assume(one != two)
    text = json.dumps(body())
    first, second = way(text, tenant=one), way(text, tenant=two)
    assert first.digest != second.digest
    assert first.flight != second.flight


OTHERS = {
    "backend": msgspec.structs.replace(
        SCENARIO, targets=(Target(backend=msgspec.structs.replace(BACKEND, model="m"), weight=1),)
    ),
    "name": msgspec.structs.replace(SCENARIO, name="other"),
    "fallbacks": msgspec.structs.replace(SCENARIO, fallbacks=(BACKEND,)),
    "ignored": msgspec.structs.replace(SCENARIO, cache=CachePolicy(ignored=frozenset({"user"}))),
}


@pytest.mark.parametrize("other", list(OTHERS.values()), ids=list(OTHERS))
def test_another_scenario_is_another_key(other: Scenario) -> None:
    """Whatever of it changed."""
    assert way(json.dumps(body()), scenario=other).digest != way(json.dumps(body())).digest


def test_another_choice_of_backends_is_another_key() -> None:
    """Conditions of targets may look at what is no part of the body."""
    text = json.dumps(body())
    keys = {
        way(text, route=route).digest for route in ((), ("by", "a"), ("by", "b"), ("without", "a"), ("by", "a", "b"))
    }
    assert len(keys) == 5


def test_an_alias_is_another_key() -> None:
    """The name may be sent on, and comes back in the answer."""
    assert way(json.dumps(body(model="gpt-4o"))).digest != way(json.dumps(body())).digest


def test_how_an_answer_travels_is_no_part_of_the_key() -> None:
    """A stream finds what a plain request has left; they do not share a call."""
    plain = way(json.dumps(body()))
    streamed = way(json.dumps(body(stream=True, stream_options={"include_usage": True})))
    assert plain.digest == streamed.digest
    assert plain.flight != streamed.flight


def test_fields_are_left_out_only_where_the_scenario_says_so() -> None:
    """Some backends go by who asks."""
    users = [json.dumps(body(user=name)) for name in ("a", "b")]
    assert way(users[0]).digest != way(users[1]).digest
    keys = {way(text, scenario=OTHERS["ignored"]).digest for text in (*users, json.dumps(body()))}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("fields", "cache_control"),
    [
        ({"n": 2}, b""),
        ({}, b"no-store"),
        ({}, b"max-age=5, No-Store"),
        ({"x": msgspec.Raw(b'{"a":1,"a":1}')}, b""),
        ({"x": msgspec.Raw(b'[[{ "b": {"a" :1.50, "a":2} }]]')}, b""),
        ({"x": msgspec.Raw(b"9" * 5000)}, b""),
    ],
)
def test_what_goes_past_the_cache(fields: dict[str, Any], cache_control: bytes) -> None:
    """Several choices, no-store, and JSON that two servers may read differently."""
    raw = msgspec.json.encode(body(**fields))
    request = read_chat_request(raw, 1000)
    assert Ways().of("acme", SCENARIO, request, cache_control) is None


@pytest.mark.parametrize(
    ("cache_control", "reads"),
    [(b"no-cache", False), (b"NO-CACHE , x", False), (b"max-age = 0", False), (b"max-age=60", True), (b"", True)],
)
def test_a_new_answer_can_be_asked_for(cache_control: bytes, reads: bool) -> None:
    """By the words of RFC 9111, in any case and among others."""
    assert way(json.dumps(body()), cache_control=cache_control).reads is reads


@given(st.binary(max_size=40))
def test_any_bytes_have_one_form_or_none(raw: bytes) -> None:
    """Nothing else is raised, and the form of a form is itself."""
    canonical = Canonical()
    try:
        form = canonical.form(raw)
    except Unclear:
        return
    assert canonical.form(form) == form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1e400", b"10e399"),
        (b"1.5e-500", b"15e-501"),
        (b"0." + b"0" * 500 + b"1", b"1e-501"),
        (b"0.30000", b"3E-1"),
        (b"-0.0", b"0"),
        (b"1e999999999", b"10e999999998"),
    ],
)
def test_numbers_of_any_size_have_one_form(one: bytes, other: bytes) -> None:
    """And none of them takes more room than it needs."""
    canonical = Canonical()
    assert canonical.form(one) == canonical.form(other)
    assert len(canonical.form(other)) < 600
    assert canonical.form(one + b"1" if b"." in one else b"1" + one) != canonical.form(other)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"1e99999999999999999999"])
def test_what_is_too_much_has_no_form(raw: bytes) -> None:
    """Nested too deeply, or a number beyond all bounds."""
    with pytest.raises(Unclear):
        Canonical().form(raw)


CALLS: dict[str, tuple[Any, ...]] = {
    "tenant": ("acme", "beta"),
    "scenario": (SCENARIO, OTHERS["backend"]),
    "fields": ("", ',"a":1', ',"b":1', ',"a":1,"b":1', ',"b":1,"a":1', ',"a":"1,1"', ',"a":[1,1]', ',"stream":true'),
    "model": ("chat", "gpt-4o"),
    "output_limit": (None, 5),
    "choices": (1, 2),
    "cache_control": (b"", b"no-cache", b"no-store"),
    "route": ((), ("by", "a"), ("without", "a")),
}
"""All that a way is made of."""


def test_equal_writings_are_one_way_of_one_tenant() -> None:
    """What is found by its writing is what would have been made of it, whatever two calls differ in: all of them."""
    found: dict[Writing, tuple[str, Way | None]] = {}
    for values in itertools.product(*CALLS.values()):
        call = dict(zip(CALLS, values, strict=True))
        way, writing = _way_of(call)
        assert found.setdefault(writing, (call["tenant"], way)) == (call["tenant"], way), call
    assert len(found) == math.prod(map(len, CALLS.values()))


def _way_of(call: dict[str, Any]) -> tuple[Way | None, Writing]:
    """The way of a call, and its writing."""
    read = read_chat_request(f'{{"model":"chat","messages":[1]{call["fields"]}}}'.encode(), 100)
    others = {name: call[name] for name in ("model", "output_limit", "choices")}
    request = msgspec.structs.replace(read, **others)
    asked = (call["tenant"], call["scenario"], request, call["cache_control"], call["route"])
    return Ways().of(*asked), writing_of(*asked)
