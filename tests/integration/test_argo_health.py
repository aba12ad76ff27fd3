"""The health check for Argo CD in the README of the definitions' chart, run by a Lua that is at hand: Valkey's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.support.valkey import Valkey

README = Path(__file__).resolve().parents[2] / "charts/llm-gateway-crds/README.md"


def health_check() -> str:
    """The script as the README has it, in a function that a script of Valkey can be."""
    (block,) = [
        text for text in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL) if "health.lua" in text
    ]
    customizations = yaml.safe_load(yaml.safe_load(block)["data"]["resource.customizations"])
    script = customizations["llmgateway.dev/*"]["health.lua"]
    call = "local health = check(cjson.decode(ARGV[1])) return {health.status, health.message}"
    return f"local function check(obj)\n{script}\nend\n{call}"


def resource(generation: int, observed: int | None, accepted: str | None = None) -> dict[str, Any]:
    """A resource with what the gateway said of it."""
    item: dict[str, Any] = {"metadata": {"generation": generation}}
    if observed is not None:
        conditions = [{"type": "Ready", "status": "True", "reason": "Serving", "message": ""}]
        if accepted is not None:
            said = {"type": "Accepted", "status": accepted, "reason": "Invalid", "message": "spec.url: is required"}
            conditions.insert(0, said)
        item["status"] = {"observedGeneration": observed, "conditions": conditions}
    return item


@pytest.mark.parametrize(
    ("item", "status", "message"),
    [
        (resource(1, None), "Progressing", "not looked"),
        (resource(2, 1, "True"), "Progressing", "not looked"),
        (resource(2, 2), "Progressing", "not looked"),
        (resource(2, 2, "True"), "Healthy", ""),
        (resource(2, 2, "False"), "Degraded", "Invalid: spec.url: is required"),
    ],
    ids=["new", "changed", "half said", "accepted", "refused"],
)
def test_the_health_check_says_what_the_gateway_said(item: dict[str, Any], status: str, message: str) -> None:
    """Waiting until the gateway has looked at this generation, then as it judged."""
    with Valkey() as valkey, redis.Redis.from_url(valkey.url) as client:
        said: Any = client.eval(health_check(), 0, json.dumps(item))
        assert said[0].decode() == status
        assert message in said[1].decode()
