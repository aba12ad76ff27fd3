"""A gateway before the scripted Anthropic of ``anthropic_api``, and the official ``openai`` client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai import OpenAI
from openai.types.chat import ParsedChatCompletionMessage

from tests.support.anthropic_api import KEY, NEW_MODEL, OLD_MODEL, Claude, message, text
from tests.support.documents import Document, api_key, backend, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.openai_api import Api, Kind
from tests.support.upstream import ScriptedUpstream

PRICE = {
    "inputPerMillion": "5",
    "cachedInputPerMillion": "0.5",
    "cacheWriteInputPerMillion": "6.25",
    "outputPerMillion": "25",
}


class ClaudeGateway:
    """The gateway, the scripted Anthropic, and the official client."""

    def __init__(self, gateway: GatewayProcess, upstream: ScriptedUpstream, claude: Claude) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.answers = claude

    def api(self, kind: Kind = "sync") -> Api:
        """A client."""
        return Api(kind, self.gateway)

    def accumulated(self, **fields: Any) -> ParsedChatCompletionMessage[Any]:
        """The message that the client makes of a stream."""
        with self.client() as client, client.chat.completions.stream(**fields) as events:
            return events.get_final_completion().choices[0].message

    def client(self) -> OpenAI:
        """The client itself."""
        return OpenAI(base_url=f"{self.gateway.base_url}/v1", api_key=self.gateway.key, max_retries=0)

    def sent(self) -> Any:
        """The body of the last request that the backend got."""
        return self.upstream.requests[-1].json()

    def forget(self) -> None:
        """As new."""
        self.upstream.forget()
        self.answers.violations.clear()
        self.answers.answer = message(text("Good morning to you"))


def claude_backend(name: str, url: str, **spec: Any) -> Document:
    """A backend that speaks Messages."""
    auth = {"type": "header", "secret": {"env": "LLM_GATEWAY_SECRET_ANTHROPIC"}}
    return document(
        "Backend", name, {"provider": "anthropic", "url": f"{url}/v1", "model": NEW_MODEL, "auth": auth} | spec
    )


@contextmanager
def claude_gateway() -> Iterator[ClaudeGateway]:
    """Scenarios ``new`` and ``old`` (a model before those that adapt), ``lenient``, ``spare`` (a fallback of chat).

    ``open`` lets callers ask for a beta, ``poet`` has a prompt and parameters, ``strict`` takes few fields.
    """
    key, claude = new_key(), Claude()
    with ScriptedUpstream(claude) as upstream, ScriptedUpstream() as other:
        documents = [
            claude_backend("new", upstream.url, maxOutputTokens=8192, price=PRICE),
            claude_backend(
                "old", upstream.url, model=OLD_MODEL, maxOutputTokens=8192, anthropic={"thinking": "budget"}
            ),
            claude_backend("beta", upstream.url, anthropic={"betas": ["context-1m-2025-08-07", "code-2025"]}),
            claude_backend("open", upstream.url, price=PRICE, anthropic={"callerBetas": ["context-1m-2025-08-07"]}),
            backend("chat", f"{other.url}/v1"),
            scenario("new", "new"),
            scenario("old", "old"),
            scenario("beta", "beta"),
            scenario("lenient", "new", lenient=True),
            scenario("open", "open"),
            scenario(
                "poet", "open", prompt="poet.v1", parameters={"defaults": {"stop": ["END"]}, "maxOutputTokens": 500}
            ),
            document("Prompt", "poet.v1", {"inputVars": [], "template": "You are a poet."}),
            scenario("strict", "open", parameters={"allow": ["tools"]}),
            scenario("spare", "new", "chat"),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        env = {"LLM_GATEWAY_SECRET_ANTHROPIC": KEY}
        with GatewayProcess(documents, key=key, env=env) as gateway:
            yield ClaudeGateway(gateway, upstream, claude)
