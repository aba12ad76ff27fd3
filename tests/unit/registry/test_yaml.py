"""Strict YAML: which text means which value, and what is refused where."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry import yaml
from gateway.registry.yaml import MAX_DEPTH, Document, YamlError, load_documents

PARSERS = [pyyaml.SafeLoader, *([pyyaml.CSafeLoader] if pyyaml.__with_libyaml__ else [])]


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.__name__)
def _either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "_LOADER", request.param)


pytestmark = pytest.mark.usefixtures("_either_parser")


def load(text: str | bytes) -> Any:
    """Load the value of the only document."""
    (document,) = load_documents(text if isinstance(text, bytes) else text.encode())
    return document.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("0", 0),
        ("-17", -17),
        ("+5", 5),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("190:20:30", "190:20:30"),
        ("2027-01-01", "2027-01-01"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("0.3", 0.3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("+", "+"),
        (".", "."),
        ("..", ".."),
        ("10m", "10m"),
        ("'010'", "010"),
        ('"1"', "1"),
        ("=", "="),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_plain_scalar(text: str, value: object) -> None:
    """A plain scalar means what YAML 1.2's core schema says, and never what YAML 1.1 added to it."""
    result = load(f"key: {text}")["key"] if text != "-" else load("key: '-'")["key"]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("a: 1\nb: 010", 2, 4, "leading zero"),
        ("a: -01.5", 1, 4, "leading zero"),
        ("a: .inf", 1, 4, "not a JSON number"),
        ("a: .NaN", 1, 4, "not a JSON number"),
        ("a: 1e999", 1, 4, "too large"),
        ("a: 18446744073709551616", 1, 4, "64 bits"),
        ("a: -9223372036854775809", 1, 4, "64 bits"),
        ("a: " + "1" * 5000, 1, 4, "in quotes"),
        ("a: 1\nb: 2\na: 3", 3, 1, "duplicate key `a`"),
        ('a: 1\n"\\x61": 3', 2, 1, "duplicate key `a`"),
        ("a: {b: 1, b: 1}", 1, 11, "duplicate key `b`"),
        ("1: a", 1, 1, "key must be a string"),
        ("true: a", 1, 1, "key must be a string"),
        ("? [a]\n: b", 1, 3, "key must be a string"),
        ("? {a: 1}\n: b", 1, 3, "key must be a string"),
        ("a: &x 1", 1, 4, "anchor"),
        ("a: *x", 1, 4, "alias"),
        ("a: !!str 1", 1, 4, "tag"),
        ("a: !x {}", 1, 4, "tag"),
        ("a: ! 1", 1, 4, "tag"),
        ("a: !!python/object:os.system {}", 1, 4, "tag"),
        ("<<: {a: 1}", 1, 1, "merge key"),
        ("%YAML 1.1\n---\na: 1", 1, 1, "%YAML"),
        ("a: [1, 2", 1, 9, ""),
        ("a: b: c", 1, 5, ""),
        ("\ta: 1", 1, 1, ""),
        ("a: 'b", 1, 6, ""),
    ],
)
def test_refused_with_line_and_column(text: str, line: int, column: int, reason: str) -> None:
    """What is refused says why, and where to look."""
    with pytest.raises(YamlError) as caught:
        load_documents(text.encode())
    assert reason in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column) or (not reason and caught.value.line in (1, 2))


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    """Nothing can be referred to twice, so nothing can grow."""
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
    with pytest.raises(YamlError, match="line 1, column 4: an anchor"):
        load(bomb)


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_nesting_is_bounded(opening: str) -> None:
    """A document nests up to the bound and no deeper, whatever the depth it asks for."""
    closing = "]" if opening == "[" else "}"
    load(opening * MAX_DEPTH + "1" + closing * MAX_DEPTH)
    with pytest.raises(YamlError):
        load(opening * (MAX_DEPTH + 1) + "1" + closing * (MAX_DEPTH + 1))
    with pytest.raises(YamlError):
        load(opening * 5_000)


def test_many_documents() -> None:
    """A file may hold many documents; empty ones and comments are nothing."""
    text = b"# first\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n"
    assert load_documents(text) == (Document(2, {"a": 1}), Document(7, {"b": 2}))
    assert load_documents(b"") == ()
    assert load_documents(b"# only a comment\n") == ()


@pytest.mark.parametrize("content", [b"a: \xff", b"a: \xc3", b"\xff\xfea\x00"])
def test_only_utf8(content: bytes) -> None:
    """Bytes that are not UTF-8 are refused with their place."""
    with pytest.raises(YamlError, match=r"line 1, column \d: not UTF-8"):
        load(content)


def test_a_byte_order_mark_is_no_content() -> None:
    """A UTF-8 byte order mark is skipped."""
    assert load(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_control_characters_are_refused() -> None:
    """A character that YAML does not allow is refused with its line."""
    with pytest.raises(YamlError) as caught:
        load("a: 1\nb: x\x00y")
    assert caught.value.line >= 1
    with pytest.raises(YamlError):
        load(b'a: "\\ud800"')


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\u2028\u2029\ufffe\uffff")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc<é", max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_is_yaml(value: object) -> None:
    """JSON text loads as the value that it is."""
    loaded = load_documents(json.dumps(value, ensure_ascii=False).encode())
    assert [document.value for document in loaded] == ([value] if value is not None else [])


@given(st.text("0123456789+-._:exXoabefEnNiIyYsStTrRuUlL~", min_size=1, max_size=12))
def test_a_plain_scalar_is_its_json_value_or_its_text(text: str) -> None:
    """A plain scalar that is a JSON value is that value; any other is its own text, a core number, or refused."""
    try:
        value = load(f"[{text}]")
    except YamlError:
        return
    try:
        expected: object = json.loads(text, parse_constant=str)
    except ValueError:
        return
    assert value == [expected]
