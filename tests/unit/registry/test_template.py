"""Prompt templates: what is text, what is a variable, what is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.template import TemplateError, mismatches, split


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("plain", ("plain",)),
        ("{a}", ("", "a", "")),
        ("x{a}y{b}z", ("x", "a", "y", "b", "z")),
        ("{a}{a}", ("", "a", "", "a", "")),
        ("{{}}", ("{}",)),
        ('{{"k": {v}}}', ('{"k": ', "v", "}")),
        ("{{{a}}}", ("{", "a", "}")),
        ("{{a}}", ("{a}",)),
    ],
)
def test_split(template: str, parts: tuple[str, ...]) -> None:
    """A template alternates literals and variables; doubled braces are literal."""
    assert split(template) == parts


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("a\nb {", "line 2, column 3"),
        ("}", "line 1, column 1"),
        ("{}", "line 1, column 1"),
        ("{a b}", "line 1, column 1"),
        ("{a.b}", "line 1"),
        ("{1a}", "line 1"),
        ("{a!r}", "line 1"),
        ("{a:>9}", "line 1"),
        ("x{{a}", "line 1, column 5"),
        ("{a{b}", "line 1, column 1"),
    ],
)
def test_malformed(template: str, place: str) -> None:
    """A lone brace, and a variable that is no name, are refused with their place."""
    with pytest.raises(TemplateError, match=place):
        split(template)


def test_mismatches_name_each_variable() -> None:
    """Undeclared, unused and repeated variables are each named."""
    assert list(mismatches(split("{a}{b}{b}"), ["a", "c", "a"])) == [
        ("template", "uses `{b}`, which inputVars does not declare"),
        ("inputVars[1]", "`c` is not used by the template"),
        ("inputVars[2]", "`a` is declared twice"),
    ]


@given(st.text("ab{}\n", max_size=30))
def test_doubling_braces_escapes_any_text(text: str) -> None:
    """Any text can be written as a template that means that text."""
    assert split(text.replace("{", "{{").replace("}", "}}")) == (text,)
