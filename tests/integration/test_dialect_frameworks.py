"""Agents of LangChain, LlamaIndex and Pydantic AI run through the gateway, each over a backend of another dialect."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.matrix.said import CALLS, CITIES, WEATHER, Said
from tests.support.matrix.serving import Serving, serving

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-frameworks" / "bin" / "python"
AGENTS = {
    "langchain-openai": "anthropic",
    "langchain-responses": "gemini",
    "langchain-anthropic": "openai",
    "llamaindex-openai": "bedrock",
    "llamaindex-anthropic": "gemini",
    "pydantic-ai-openai": "gemini",
    "pydantic-ai-responses": "anthropic",
    "pydantic-ai-anthropic": "bedrock",
}
"""The agent, and the provider that it reaches."""


@pytest.fixture(scope="module")
def gateways() -> Iterator[Serving]:
    """One gateway before the models of all providers."""
    if not PYTHON.exists():
        pytest.skip("needs the frameworks: `tools/frameworks.sh` installs them")
    with serving() as found:
        yield found


@pytest.mark.parametrize(("agent", "provider"), AGENTS.items())
def test_an_agent_uses_its_tool(gateways: Serving, agent: str, provider: str) -> None:
    """Two calls at once, both results, and the answer that comes of them."""
    model = gateways.models[provider]
    model.forget()
    model.will(Said(calls=CALLS), Said(WEATHER))
    done = subprocess.run(
        [PYTHON, "tests/frameworks/agents.py", agent, gateways.gateway.base_url, gateways.key, provider],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"cities": sorted(CITIES), "said": WEATHER}
    assert model.problems == []
    for city in CITIES:
        assert f"weather of {city}".encode() in model.bodies[1]
