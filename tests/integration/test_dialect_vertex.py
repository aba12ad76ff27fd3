"""Vertex AI behind the gateway: its address, and the access tokens of a service account from a real token endpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import openai
import pytest

from tests.support.documents import Document, api_key, document, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.gemini import Gemini, error_reply
from tests.support.google_tokens import TokenEndpoint, account_key
from tests.support.openai_api import KINDS, Api
from tests.support.scripts import Chat, reply
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

MESSAGES: list[Any] = [{"role": "user", "content": "Good morning"}]
PUBLISHER = "/v1/projects/acme-prod-42/locations/europe-west1/publishers/google"


BAD = {
    "refused": reply(400, body=b'{"error":"invalid_grant","error_description":"Invalid JWT Signature."}'),
    "redirect": reply(302, headers=[("location", "http://127.0.0.1:1/token")]),
    "html": reply(200, body=b"<html>"),
    "token": reply(200, body=b'{"access_token":"a b","token_type":"Bearer","expires_in":3600}'),
    "endless": reply(200, body=b'{"access_token":"a","token_type":"Bearer"}'),
    "large": reply(200, body=b'{"access_token":"%b","token_type":"Bearer","expires_in":3600}' % (b"a" * 70_000)),
}
"""Answers of a token endpoint that are none, by the accounts that get them."""


class Vertex(NamedTuple):
    """A gateway, what it calls, and what gives it tokens."""

    gateway: GatewayProcess
    upstream: ScriptedUpstream
    gemini: Gemini
    tokens: TokenEndpoint


def google(name: str, provider: str, url: str, account: str) -> Document:
    """A backend with the key of an account."""
    auth = {"type": "googleServiceAccount", "secret": {"file": f"{account}.json"}}
    return document("Backend", name, {"provider": provider, "url": url, "model": "gemini-3-flash", "auth": auth})


def email(account: str) -> str:
    """Of an account."""
    return f"{account}@acme-prod-42.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def running() -> Iterator[Vertex]:
    """Scenarios ``chat`` and ``same`` of one account, ``openai`` of another one, and one for each that gets no token.

    Good tokens come over TLS with an authority of our own, bad answers over loopback.
    """
    key = new_key()
    gemini, tokens = Gemini(), TokenEndpoint()
    tokens.replies = {email(name): answer for name, answer in BAD.items()}
    with (
        ScriptedUpstream(gemini) as upstream,
        ScriptedUpstream(tokens) as plain,
        ScriptedUpstream(tokens, tls=True) as endpoint,
        tempfile.NamedTemporaryFile() as ca,
    ):
        ca.write(endpoint.ca_pem)
        ca.flush()
        uri = f"{endpoint.url}/token"
        publisher = f"{upstream.url}{PUBLISHER}"
        documents = [
            google("chat", "vertex", publisher, "gateway"),
            google("same", "vertex", publisher, "gateway"),
            google("openai", "openai", f"{upstream.url}/v1", "other"),
            echo_backend("echo"),
            *(google(name, "vertex", publisher, name) for name in BAD),
            *(scenario(name, name) for name in ("chat", "same", "openai", *BAD)),
            *(scenario(f"spare-{name}", name, "echo") for name in BAD),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        secrets = {f"{name}.json": account_key(uri, client_email=email(name)) for name in ("gateway", "other")}
        secrets |= {f"{name}.json": account_key(f"{plain.url}/token", client_email=email(name)) for name in BAD}
        env = {"LLM_GATEWAY_UPSTREAM_CA_FILE": ca.name}
        with GatewayProcess(documents, key=key, secrets=secrets, env=env) as gateway:
            yield Vertex(gateway, upstream, gemini, tokens)
            assert "PRIVATE KEY" not in gateway.output()
            assert "ya29" not in gateway.output()
    assert tokens.problems == []


@pytest.fixture
def vertex(running: Vertex) -> Iterator[Vertex]:
    """The same, with nothing seen yet; no request was one that Gemini does not allow."""
    running.upstream.forget()
    running.gemini.forget()
    yield running
    assert running.gemini.problems == []


def bearers(upstream: ScriptedUpstream) -> list[str | None]:
    """The tokens of the requests so far."""
    return [request.header("authorization") for request in upstream.requests]


def ask(gateway: GatewayProcess, model: str) -> str | None:
    """What a question is answered with."""
    return Api("sync", gateway).complete(model=model, messages=MESSAGES).choices[0].message.content


def test_tokens_are_shared_renewed_when_refused_and_survive_their_endpoint(vertex: Vertex) -> None:
    """One token for all calls and backends of an account; a refused one is replaced within the call."""
    gateway, upstream, _, tokens = vertex
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: ask(gateway, name), ["chat", "same"] * 4))
    assert answers == ["Hello from Gemini"] * 8
    assert bearers(upstream) == ["Bearer ya29.gateway-1"] * 8
    assert upstream.requests[0].target == f"{PUBLISHER}/models/gemini-3-flash:generateContent"
    upstream.enqueue(error_reply(401, "Request had invalid authentication credentials."))
    assert ask(gateway, "chat") == "Hello from Gemini"
    assert bearers(upstream)[8:] == ["Bearer ya29.gateway-1", "Bearer ya29.gateway-2"]
    upstream.enqueue(error_reply(401))  # so soon after the last one it is the account's fault
    with pytest.raises(openai.APIStatusError) as caught:
        ask(gateway, "chat")
    assert caught.value.status_code == 502
    assert tokens.given[email("gateway")] == 2
    tokens.replies[email("gateway")] = reply(500)
    assert ask(gateway, "chat") == "Hello from Gemini", "the token is good for another hour"
    for kind in KINDS:
        assert len(Api(kind, gateway).stream(model="chat", messages=MESSAGES)) > 1


@pytest.mark.parametrize("account", BAD)
def test_without_a_token_the_next_backend_answers(vertex: Vertex, account: str) -> None:
    """Nothing is sent to the model; alone, the call fails, and its caller is told nothing of tokens."""
    gateway, upstream, _, _ = vertex
    assert ask(gateway, f"spare-{account}") == "Good morning"
    with pytest.raises(openai.APIStatusError) as caught:
        ask(gateway, account)
    assert caught.value.status_code == 502
    assert "token" not in caught.value.response.text
    assert upstream.requests == []
    gateway.wait_for_log(lambda line: f"no token for service account {email(account)}" in str(line.get("message")))


def test_an_account_gets_tokens_again_when_its_endpoint_gives_them(vertex: Vertex) -> None:
    """Within a second or so, without a restart."""
    gateway, _, _, tokens = vertex
    assert ask(gateway, "spare-html") == "Good morning"
    del tokens.replies[email("html")]
    eventually(lambda: ask(gateway, "spare-html") == "Hello from Gemini", what="a token again", every_s=0.2)


def test_servers_of_the_openai_dialect_may_have_such_tokens(vertex: Vertex) -> None:
    """Such as Vertex AI's own endpoint of that dialect."""
    gateway, upstream, _, _ = vertex
    upstream.enqueue(Chat())
    assert ask(gateway, "openai") == "Hello from upstream"
    assert bearers(upstream) == ["Bearer ya29.other-1"]
