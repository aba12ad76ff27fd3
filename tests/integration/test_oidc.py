"""JWTs at the shipped gateway: a real issuer over https, real keys, and every attack answered as any wrong key is."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.client import Response
from tests.support.documents import Document, api_key, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.issuer import AUDIENCE, IssuerServer, SigningKey, claims, encoded, forge, rsa_private_key
from tests.support.upstream import ScriptedUpstream

ASK = {"model": "chat", "messages": [{"role": "user", "content": "Good morning"}]}
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


def of(issuer: str, name: str = "acme", **spec: Any) -> Document:
    """A tenant whose tokens have its name in the claim ``tenant``."""
    return tenant(name, oidc={"issuer": issuer, "audience": AUDIENCE, "claim": "tenant", "value": name}, **spec)


def trusting(folder: Path, *issuers: IssuerServer, **settings: str) -> dict[str, str]:
    """The environment of a gateway that trusts these issuers' certificates."""
    ca_file = folder / "issuers.pem"
    ca_file.write_bytes(b"".join(each.ca_pem for each in issuers))
    return {"LLM_GATEWAY_OIDC_CA_FILE": str(ca_file)} | {
        f"LLM_GATEWAY_OIDC_{name.upper()}": value for name, value in settings.items()
    }


def ask(gateway: GatewayProcess, credential: str, header: str = "authorization") -> Response:
    """The answer to a chat request with a credential."""
    value = f"Bearer {credential}" if header == "authorization" else credential
    with gateway.client() as client:
        return client.request("/v1/chat/completions", ASK, headers={header: value})


class Site(NamedTuple):
    """A gateway, the issuer of its tenants' tokens and a key for each algorithm, its name the key's id."""

    gateway: GatewayProcess
    issuer: IssuerServer
    keys: dict[str, SigningKey]
    upstream: ScriptedUpstream

    def claims(self, **more: Any) -> dict[str, Any]:
        """Good claims."""
        return claims(self.issuer.url, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for the module; tests change neither its registry nor the issuer's keys."""
    keys = {algorithm: SigningKey(algorithm, algorithm) for algorithm in ALGORITHMS}
    with ScriptedUpstream() as upstream, IssuerServer() as issuer:
        issuer.publish(*keys.values())
        key = new_key()
        documents = [
            {**echo_backend("main"), "spec": {"provider": "openai", "url": f"{upstream.url}/v1"}},
            scenario("chat", "main"),
            of(issuer.url),
            of(issuer.url, "beta"),
            of(issuer.url, "closed", disabled=True),
            of(issuer.url, "fenced", ipAllowList=["192.0.2.0/24"]),
            api_key("acme-key", key),
        ]
        env = trusting(tmp_path_factory.mktemp("oidc"), issuer)
        with GatewayProcess(documents, key=key, env=env) as gateway:
            yield Site(gateway, issuer, keys, upstream)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_opens_its_tenant(site: Site, algorithm: str) -> None:
    """In the log the caller is the tenant, with a key of the name ``oidc``; the token stays here."""
    site.upstream.forget()
    token = site.keys[algorithm].token(site.claims(sub=algorithm))
    answer = ask(site.gateway, token)
    assert answer.status == 200
    request_id = answer.header("x-request-id")
    line = site.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)
    assert (line["tenant"], line["key"], line["status"]) == ("acme", "oidc", 200)
    sent = site.upstream.requests[-1]
    assert not any("authorization" in str(name).lower() for name in sent.headers)
    for part in token.split("."):
        assert part not in site.gateway.output()
        assert part not in str(site.gateway.logs())


def test_every_endpoint_and_header_takes_tokens(site: Site) -> None:
    """Where a key may stand a token may stand, and the claim says whose it is."""
    key = site.keys["ES256"]
    for header in ("authorization", "x-api-key", "api-key"):
        assert ask(site.gateway, key.token(site.claims(tenant="beta")), header).status == 200
    credential = {"authorization": f"Bearer {key.token(site.claims())}"}
    with site.gateway.client() as client:
        assert [each["id"] for each in client.request("/v1/models", headers=credential).json()["data"]] == ["chat"]
        assert client.request("/v1/models/chat", headers=credential).status == 200
        body = {"prompt": "hi", "model": "chat"}
        assert client.request("/generate", body, headers=credential).status == 200
        for path in ("/v1/models", "/v1/models/chat"):
            assert client.request(path, headers={"authorization": "Bearer a.b.c"}).status == 401
        assert client.request("/generate", body, headers={"authorization": "Bearer a.b.c"}).status == 401
    assert ask(site.gateway, site.gateway.key).status == 200


def hs256(site: Site) -> str:
    """Keyed with the PEM of the RSA key that everybody can fetch."""
    pem = site.keys["RS256"].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return forge({"alg": "HS256", "kid": "RS256"}, site.claims(), lambda data: hmac.digest(pem, data, "sha256"))


def with_payload_of_another(site: Site) -> str:
    """A good token whose claims were exchanged."""
    head, _, signature = site.keys["RS256"].token(site.claims(tenant="beta")).split(".")
    return f"{head}.{encoded(json.dumps(site.claims()).encode()).decode()}.{signature}"


def brought(member: str) -> Callable[[Site], str]:
    """A token that names an attacker's key set, and is signed by the attacker."""

    def make(site: Site) -> str:
        stranger = SigningKey("RS256", "stranger")
        value: Any = stranger.jwk() if member == "jwk" else site.issuer.url + "/evil"
        return stranger.token(site.claims(), **{member: value})

    return make


ATTACKS: dict[str, Callable[[Site], str]] = {
    "none": lambda site: forge({"alg": "none"}, site.claims(), lambda _: b""),
    "none with a signature": lambda site: forge({"alg": "none", "kid": "RS256"}, site.claims(), lambda _: b"x" * 256),
    "HS256 with the public key": hs256,
    "an EC signature for an RSA key": lambda site: site.keys["ES256"].token(site.claims(), kid="RS256"),
    "an RSA algorithm for an EC key": lambda site: site.keys["RS256"].token(site.claims(), kid="ES256"),
    "another curve": lambda site: site.keys["ES384"].token(site.claims(), kid="ES256"),
    "another hash than the key's": lambda site: SigningKey("RS512", "RS256", site.keys["RS256"].private).token(
        site.claims()
    ),
    "a stranger's key under a known id": lambda site: SigningKey("RS256", "RS256", rsa_private_key("stranger")).token(
        site.claims()
    ),
    "an unknown key id": lambda site: site.keys["RS256"].token(site.claims(), kid="other"),
    "exchanged claims": with_payload_of_another,
    "jku": brought("jku"),
    "x5u": brought("x5u"),
    "jwk": brought("jwk"),
    "jku with a good signature": lambda site: site.keys["RS256"].token(site.claims(), jku="https://localhost/keys"),
    "a critical extension": lambda site: site.keys["RS256"].token(site.claims(), crit=["exp"]),
    "too large": lambda site: site.keys["RS256"].token(site.claims(padding="x" * 8000)),
    "expired": lambda site: site.keys["RS256"].token(site.claims(exp=1_000_000_000)),
    "without an end": lambda site: site.keys["RS256"].token(site.claims(exp=None)),
    "not valid yet": lambda site: site.keys["RS256"].token(site.claims(nbf=32_000_000_000)),
    "another issuer": lambda site: site.keys["RS256"].token(claims("https://idp.example")),
    "another audience": lambda site: site.keys["RS256"].token(site.claims(aud="another-service")),
    "no tenant of ours": lambda site: site.keys["RS256"].token(site.claims(tenant="gamma")),
    "two tenants": lambda site: site.keys["RS256"].token(site.claims(tenant=["acme", "beta"])),
    "a disabled tenant": lambda site: site.keys["RS256"].token(site.claims(tenant="closed")),
    "a tenant of another network": lambda site: site.keys["RS256"].token(site.claims(tenant="fenced")),
    "claims nested too deep": lambda site: site.keys["RS256"].token(b'{"a":' * 1000 + b"1" + b"}" * 1000),
    "no claims": lambda site: site.keys["RS256"].token(b"[]"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(site: Site, attack: str) -> None:
    """The very answer that a wrong key gets; the issuer is asked for nothing but its keys."""
    token = ATTACKS[attack](site)
    expected = ask(site.gateway, "test-" + "0" * 48)
    assert expected.status == 401
    answer = ask(site.gateway, token)
    assert (answer.status, answer.body) == (401, expected.body)
    names = [{name for name, _ in each.headers} for each in (answer, expected)]
    assert names[0] == names[1]
    assert "/evil" not in site.issuer.requests
    assert ask(site.gateway, site.keys["RS256"].token(site.claims())).status == 200


def test_a_flood_of_invented_key_ids(site: Site) -> None:
    """Costs the issuer one fetch per interval, which is ten seconds here."""
    before = site.issuer.fetches()
    for number in range(60):
        assert ask(site.gateway, site.keys["ES256"].token(site.claims(), kid=f"invented-{number}")).status == 401
    assert site.issuer.fetches() - before <= 2
