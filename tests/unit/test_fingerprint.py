"""What changes the fingerprint of a scenario, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.fingerprint import digest_of
from gateway.model import (
    Backend,
    CachePolicy,
    EchoOptions,
    Origin,
    Parameters,
    Price,
    Prompt,
    Scenario,
    Target,
    Timeouts,
)

NO_EFFECT = {
    Scenario: {"description", "aliases", "disabled", "created", "canary", "shadow"},
    CachePolicy: {"ttl_s", "max_entry_bytes", "similar"},
    Backend: {"headers", "credential", "timeouts", "max_concurrent_requests", "queue", "price", "disabled", "batch"},
}
"""The fields that cannot change an answer; whoever adds to this list has thought about it."""

BACKEND = Backend(
    name="qwen",
    provider="openai",
    origin=Origin(scheme="https", host="a.example", port=443),
    headers=((b"x-team", b"llm"), (b"authorization", b"Bearer secret")),
    open_headers=((b"x-team", b"llm"),),
    timeouts=Timeouts(),
    price=Price(input_nano_usd=1, cached_input_nano_usd=1, output_nano_usd=1),
    echo=EchoOptions(),
)
SCENARIO = Scenario(
    name="chat",
    prompt=Prompt(name="p.v1", input_vars=("a",), parts=("x", "a", "y")),
    parameters=Parameters(defaults={"temperature": b"0.3"}, overrides={"seed": b"1"}, max_output_tokens=9),
    targets=(Target(backend=BACKEND, weight=3),),
    fallbacks=(BACKEND,),
    cache=CachePolicy(ignored=frozenset({"user"})),
)


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value + b"x"
    if isinstance(value, tuple):
        return (*value, "more")
    if isinstance(value, frozenset):
        return value | {"more"}
    if isinstance(value, dict):
        return {**value, "more": b"1"}
    return "something"


def variants(value: msgspec.Struct, path: str = "") -> Iterator[tuple[str, bool, msgspec.Struct]]:
    """The value with each of its fields changed, at any depth: where, whether an answer may change by it, the value."""
    for name in value.__struct_fields__:
        silent = name in NO_EFFECT.get(type(value), set())
        field = getattr(value, name)
        inner = field[0] if isinstance(field, tuple) and field and isinstance(field[0], msgspec.Struct) else field
        if isinstance(inner, msgspec.Struct):
            for where, counts, other in variants(inner, f"{path}{name}."):
                put = (other, *field[1:]) if isinstance(field, tuple) else other
                yield where, counts and not silent, msgspec.structs.replace(value, **{name: put})
        yield f"{path}{name}", not silent, msgspec.structs.replace(value, **{name: changed(field)})


@pytest.mark.parametrize(("where", "counts", "other"), list(variants(SCENARIO)), ids=lambda value: str(value)[:40])
def test_every_field_counts_unless_it_cannot_change_an_answer(where: str, counts: bool, other: Scenario) -> None:
    """A field that is added to any of these types counts, or stands in the list above."""
    assert (digest_of(other) != SCENARIO.fingerprint) == counts, where


def test_a_scenario_knows_its_own() -> None:
    """Also one that was made of another."""
    other = msgspec.structs.replace(SCENARIO, name="other")
    assert SCENARIO.fingerprint == digest_of(SCENARIO) != other.fingerprint


def test_order_counts_where_it_means_something() -> None:
    """Of targets and parts, not of mappings and sets."""
    one = Scenario(name="a", parameters=Parameters(defaults={"a": b"1", "b": b"2"}))
    two = Scenario(name="a", parameters=Parameters(defaults={"b": b"2", "a": b"1"}))
    assert one.fingerprint == two.fingerprint
    other = msgspec.structs.replace(BACKEND, name="other")
    assert Scenario(name="a", fallbacks=(BACKEND, other)).fingerprint != (
        Scenario(name="a", fallbacks=(other, BACKEND)).fingerprint
    )


def test_what_is_of_no_known_type_is_an_error() -> None:
    """Rather than a fingerprint that does not notice it."""

    class Odd(msgspec.Struct):
        value: object

    with pytest.raises(TypeError, match="complex"):
        digest_of(Odd(1j))
