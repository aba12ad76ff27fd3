"""Two releases on one Redis, as they are during a rolling update: each has its own scripts, both keep the same levels.

The other release is a copy of the package whose scripts are other texts, and so have other digests.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.documents import new_key
from tests.support.gateway import ROOT, GatewayProcess
from tests.support.limited import Fleet, Spender, body, code, limit, registry, spend_up, statuses
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

LIMITS = [limit("tokens", 3000, "day"), limit("concurrency", 6), limit("requests", 1000, "second")]


@pytest.fixture
def other_release(tmp_path: Path) -> Path:
    """A folder to import the other release from."""
    package = tmp_path / "gateway"
    shutil.copytree(ROOT / "gateway", package, ignore=shutil.ignore_patterns("__pycache__"))
    for script in package.rglob("*.lua"):
        script.write_text(script.read_text("utf-8") + "\n-- another release\n", "utf-8")
    return tmp_path


@pytest.fixture
def mixed(other_release: Path) -> Iterator[Fleet]:
    """One gateway of each release before the same backend and Valkey."""
    key = new_key()
    with ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream())
        valkey = stack.enter_context(Valkey())
        held = registry(upstream.url, key, LIMITS, maxOutputTokens=400)
        settings = {"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_REDIS_DEADLINE_S": "1"}
        gateways = [
            stack.enter_context(GatewayProcess(held, key=key, env=settings | {"PYTHONPATH": str(folder)}))
            for folder in (ROOT, other_release)
        ]
        yield Fleet(gateways, upstream, valkey, key)


def test_two_releases_keep_the_same_limits(mixed: Fleet) -> None:
    """A budget is spent to its last call and by neither beyond, and each settles what it admitted.

    Scripts of both are in the server, so both really ran.
    """
    spender = Spender(most=400, prompt=25)
    mixed.upstream.behaviour = spender
    answers = [mixed.ask(body(max_tokens=100), at=each) for each in (0, 1)]
    answers += mixed.ask_many(40, callers=8)
    turns = itertools.cycle((0, 1))
    answers += spend_up(lambda: mixed.ask(body(), at=next(turns)), spender, 3000 - 200)
    assert statuses(answers).keys() <= {200, 429}
    assert [code(mixed.ask(body(max_tokens=400), at=each)) for each in (0, 1)] == ["budget_exceeded"] * 2
    assert spender.tokens <= 3000
    eventually(lambda: mixed.usage()["input"] + mixed.usage()["output"] == spender.tokens)
    assert all(each.metrics().value("llm_gateway_requests_total", code="200") > 0 for each in mixed.gateways)
    loaded = int(
        next(
            line
            for line in mixed.command("INFO", "memory").split("\r\n")
            if line.startswith("number_of_cached_scripts")
        ).partition(":")[2]
    )
    assert loaded >= 4, "admit and settle of each"
    assert all(each.metrics().value("llm_gateway_leases_lost_total") == 0 for each in mixed.gateways)


def test_a_release_takes_over_where_the_other_ended(mixed: Fleet) -> None:
    """What one has used counts for the other, also once the first is gone; its running calls are settled at its end."""
    spender = Spender(most=100, prompt=25)
    mixed.upstream.behaviour = spender
    for _ in range(5):
        assert mixed.ask(body(max_tokens=100), at=0).status == 200
    mixed.gateways[0].stop()
    eventually(lambda: mixed.usage()["requests"] == 5)
    left = 3000 - spender.tokens
    answer = mixed.ask(body(max_tokens=100), at=1)
    assert answer.status == 200
    assert int(answer.header("x-ratelimit-remaining-tokens") or "") < left
