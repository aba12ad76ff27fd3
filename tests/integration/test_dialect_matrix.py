"""Every official client over every provider, feature by feature; ``docs/dialects.md`` has the outcome as tables."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.support.matrix.cells import NODE, NOES, PYTHON, faces, no
from tests.support.matrix.features import FEATURES
from tests.support.matrix.said import CALLS, WEATHER, Model, Said, Trouble
from tests.support.matrix.serving import Serving, serving

NODE_FOLDER = Path(__file__).parents[1] / "npm"
PROVIDERS = tuple(faces())


@pytest.fixture(scope="module")
def gateways() -> Iterator[Serving]:
    """One gateway before the models of all providers."""
    with serving() as found:
        yield found


@pytest.fixture
def model(gateways: Serving, provider: str) -> Iterator[Model]:
    """The model of a provider, of which nothing was asked that its provider does not allow."""
    found = gateways.models[provider]
    found.forget()
    yield found
    assert found.problems == []


def key_for(gateways: Serving, feature: str) -> str:
    """Whose key a feature is tried with."""
    return gateways.used_up_key if feature == "limited" else gateways.key


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("dialect", PYTHON)
def test_python(gateways: Serving, model: Model, dialect: str, provider: str, feature: str) -> None:
    """It works, or it is refused as the table says, or the client has no such call."""
    client = PYTHON[dialect](gateways.gateway.base_url, key_for(gateways, feature), provider)
    try:
        refusal = no(dialect, provider, feature)
        if refusal is None:
            getattr(client, feature)(model)
        elif not refusal.param:
            assert not hasattr(client, feature)
        else:
            with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match=refusal.param):
                getattr(client, feature)(model)
    finally:
        client.close()


SCRIPTS: dict[str, tuple[Said | Trouble, ...]] = {
    "text": (Said("Good morning"),),
    "system": (Said("Yes"),),
    "turns": (Said("Blue"),),
    "image": (Said("A pixel"),),
    "tool": (Said(calls=CALLS[:1]), Said(WEATHER)),
    "tools": (Said(calls=CALLS), Said(WEATHER)),
    "stream": (Said(WEATHER),),
    "stream_tools": (Said(calls=CALLS),),
    "stop": (Said("One", stopped_by="END"),),
    "structured": (Said('{"city":"Bonn"}'),),
    "refused": ("refused",),
    "failed": ("failed",),
    "overloaded": ("overloaded",),
    "breaks": ("breaks",),
}
"""What the model says while a client for Node.js is at it; the clients for Python queue the same themselves."""


class NodeClients:
    """The clients for Node.js, in one process that is asked for one feature at a time."""

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None or not (NODE_FOLDER / "node_modules").is_dir():
            pytest.skip("needs Node.js 20 or newer, and `npm ci` in tests/npm")
        self._process = subprocess.Popen(
            [node, "client.mjs"], cwd=NODE_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **fields: Any) -> dict[str, Any]:
        """What came of one feature."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(fields) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it by the end of its input."""
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def node() -> Iterator[NodeClients]:
    """The clients for Node.js."""
    clients = NodeClients()
    yield clients
    clients.close()


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("dialect", NODE)
def test_node(gateways: Serving, node: NodeClients, model: Model, dialect: str, provider: str, feature: str) -> None:
    """As with the clients for Python."""
    refusal = no(dialect, provider, feature)
    script = SCRIPTS.get(feature, ())
    if (dialect, feature) == ("responses", "turns"):
        script = (Said("Noted."), *script)
    model.will(*script)
    answer = node.ask(
        client=dialect,
        feature=feature,
        baseUrl=gateways.gateway.base_url,
        key=key_for(gateways, feature),
        model=provider,
    )
    if refusal is None:
        assert answer["ok"], answer["error"]
        assert len(model.bodies) == len(script) or feature == "count"  # which some providers do themselves
    elif not refusal.param:
        assert "is not a function" in answer["error"]
    else:
        assert refusal.param in answer["error"]
    if feature == "system" and refusal is None:
        assert b"Be kind." in model.bodies[0]


def test_every_no_is_of_a_cell() -> None:
    """A feature or a provider that is renamed leaves no cell behind that nobody looks at."""
    assert {(dialect, provider, feature) for dialect, provider, feature in NOES} <= {
        (dialect, provider, feature) for dialect in PYTHON for provider in PROVIDERS for feature in FEATURES
    }
