"""Whatever a folder holds, a load ends, names its files, and keeps what was good."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.registry.folders import Document, Folder, api_key, backend, echo, prompt, scenario, tenant

LIMITS = [
    {"unit": "tokens", "per": "minute", "amount": 5, "burst": 2},
    {"unit": "cost", "per": "month", "amount": "400", "mode": "shadow"},
]
AUTH = {"type": "header", "name": "x-token", "secret": {"env": "LLM_GATEWAY_SECRET_QWEN"}}
PRICE = {"inputPerMillion": "0.50", "outputPerMillion": "1.50"}
GOOD: list[Document] = [
    backend(auth=AUTH, headers={"x-team": "llm"}, timeouts={"connect": "2s"}, price=PRICE),
    echo(echo={"tokenDelay": "5ms"}),
    prompt(template="{a}", inputVars=["a"]),
    scenario(
        aliases=["gpt-4o"],
        prompt="support.v2",
        parameters={"defaults": {"temperature": 0.3}, "overrides": {"n": 1}},
        fallbacks=["echo"],
        cache={"mode": "exact", "ttl": "10m"},
    ),
    tenant(limits=LIMITS, ipAllowList=["10.0.0.0/8"]),
    api_key(scenarios=["chat"], limits=LIMITS),
]

Path_ = tuple[str | int, ...]


def places(node: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every value in a document."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


PLACES = [(index, path) for index, document in enumerate(GOOD) for path in places(document)]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aA0*.-{}/: é\n", max_size=8)
    | st.sampled_from(["*", "qwen", "chat", "acme", "30s", "0.5", "ab" * 32, "2027-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", max_size=3), inner, max_size=3),
    max_leaves=5,
)


def new_folder(parent: str) -> Folder:
    """Return a folder that holds the good documents, and can read their secret."""
    folder = Folder(Path(parent) / "registry")
    folder.path.mkdir()
    folder.secrets.variables["LLM_GATEWAY_SECRET_QWEN"] = b"sk-1"
    for index, document in enumerate(GOOD):
        folder.write(f"{index}.yaml", document)
    folder.good()
    return folder


def names(folder: Folder) -> set[tuple[str, str]]:
    """Return the objects that serve."""
    assert folder.state is not None
    return {(item.kind, item.name) for item in folder.state.live}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_anywhere(place: tuple[int, Path_], value: object) -> None:
    """A document with any one value replaced is good, or refused by file and object while all objects serve on."""
    index, path = place
    document = copy.deepcopy(GOOD[index])
    node: Any = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with tempfile.TemporaryDirectory() as parent:
        folder = new_folder(parent)
        before = names(folder)
        (folder.path / f"{index}.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        result = folder.load()
        assert all(problem.source.startswith(str(folder.path)) and problem.reason for problem in result.problems)
        if path[0] not in ("metadata", "kind") and path != ("spec", "tenant"):
            assert names(folder) == before
        assert folder.load().problems == result.problems


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text("kind: {}[]&*!|>%@-\n\t'\"#,?", max_size=60).map(str.encode))
def test_any_bytes_for_a_file(content: bytes) -> None:
    """A file of any bytes never raises, and takes nothing of other files away."""
    with tempfile.TemporaryDirectory() as parent:
        folder = new_folder(parent)
        before = names(folder)
        (folder.path / "any.yaml").write_bytes(content)
        folder.load()
        assert names(folder) == before
