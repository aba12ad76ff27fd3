"""What is exported is read back as it was, whatever its texts look like."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.registry.transfer import as_yaml
from gateway.registry.yaml import load_documents

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30)
LINES = st.lists(TEXTS, max_size=4).map("\n".join)
WORDS = st.sampled_from(
    ["yes", "on", "null", "~", "010", "0o17", "1e3", ".5", "1_000", "12:30", "=", "<<", "2027-01-01"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), TEXTS, LINES, WORDS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(st.dictionaries(st.one_of(TEXTS, WORDS), VALUES, min_size=1, max_size=4))
@example({"a": "0o17", "1e3": "1e3"})
@example({"template": "two\nlines\n"})
def test_a_document_survives_its_export(document: dict[str, Any]) -> None:
    """Numbers stay numbers and texts texts, in the YAML 1.2 that the registry reads."""
    (read,) = load_documents(as_yaml(document).encode())
    assert read.value == document
