"""One gateway before the model of every provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.documents import Document, api_key, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.matrix.cells import faces
from tests.support.matrix.said import Model
from tests.support.upstream import ScriptedUpstream


@dataclass(frozen=True)
class Serving:
    """``key`` is a caller's; that of ``used_up_key`` has no call left. Each scenario has the name of its provider."""

    gateway: GatewayProcess
    models: dict[str, Model]
    key: str
    used_up_key: str


@contextmanager
def serving() -> Iterator[Serving]:
    """It, started and stopped."""
    key, used_up_key, known = new_key(), new_key(), faces()
    models = {name: Model(face) for name, face in known.items()}
    documents: list[Document] = [
        tenant("acme"),
        api_key("acme-key", key),
        tenant("used-up", limits=[{"unit": "requests", "per": "hour", "amount": 1}]),
        api_key("used-up-key", used_up_key, "used-up"),
    ]
    env = {
        "LLM_GATEWAY_REDIS_URL": "embedded",
        "LLM_GATEWAY_SECRET_MATRIX": known["openai"].key(),
        "LLM_GATEWAY_SECRET_MATRIX_ANTHROPIC": known["anthropic"].key(),
    }
    with ExitStack() as stack:
        for name, model in models.items():
            upstream = stack.enter_context(ScriptedUpstream(model))
            documents += [known[name].document(upstream.url), scenario(name, name)]
        gateway = stack.enter_context(GatewayProcess(documents, key=key, env=env))
        with gateway.client() as client:  # which uses the limit up
            message = {"model": "openai", "messages": [{"role": "user", "content": "x"}]}
            assert client.request("/v1/chat/completions", message, key=used_up_key).status == 200
        yield Serving(gateway, models, key, used_up_key)
