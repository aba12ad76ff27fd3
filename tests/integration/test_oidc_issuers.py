"""Issuers that rotate, fall silent or misbehave, as the shipped gateway sees them."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.discovery import WELL_KNOWN
from tests.conftest import StartGateway
from tests.integration.test_oidc import ask, of, trusting
from tests.support.documents import api_key, echo_backend, new_key, scenario, tenant
from tests.support.gateway import LogLine
from tests.support.issuer import AUDIENCE, KEYS_PATH, Answer, IssuerServer, SigningKey, claims
from tests.support.waiting import eventually, refusing_port

KEY = SigningKey("ES256", "first")
NEXT = SigningKey("RS256", "next")
SERVES = [echo_backend("main"), scenario("chat", "main")]


def test_keys_are_rotated(start_gateway: StartGateway, tmp_path: Path) -> None:
    """A new key is found by its unknown id; one that was withdrawn ends with the next renewal."""
    with IssuerServer() as issuer:
        issuer.publish(KEY)
        env = trusting(tmp_path, issuer, refresh_interval_s="0.1", keys_ttl_s="1")
        gateway = start_gateway([*SERVES, of(issuer.url)], env=env)
        token, later = KEY.token(claims(issuer.url)), NEXT.token(claims(issuer.url))
        assert ask(gateway, token).status == 200
        assert ask(gateway, later).status == 401
        issuer.publish(KEY, NEXT)
        eventually(lambda: ask(gateway, later).status == 200)
        assert ask(gateway, token).status == 200
        issuer.publish(NEXT)
        eventually(lambda: ask(gateway, token).status == 401)
        assert ask(gateway, later).status == 200


def test_an_unreachable_issuer_keeps_its_keys(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Known keys go on, unknown ones are refused; its fall and its return are one log line each."""
    with IssuerServer() as issuer:
        issuer.publish(KEY)
        env = trusting(tmp_path, issuer, refresh_interval_s="0.1", keys_ttl_s="1")
        gateway = start_gateway([*SERVES, of(issuer.url)], env=env)
        token, later = KEY.token(claims(issuer.url)), NEXT.token(claims(issuer.url))
        assert ask(gateway, token).status == 200
        issuer.stop()
        try:
            assert ask(gateway, later).status == 401
            line = gateway.wait_for_log(lambda line: "no keys from issuer" in line.get("message", ""))
            assert line["message"].endswith("those known stay in use")
            for number in range(30):
                assert ask(gateway, KEY.token(claims(issuer.url, sub=str(number)))).status == 200
                assert ask(gateway, later).status == 401
        finally:
            issuer.publish(KEY, NEXT)
            issuer.start()
        eventually(lambda: ask(gateway, later).status == 200)
        gateway.wait_for_log(lambda line: line.get("message") == f"issuer {issuer.url} gives its keys again")
        assert sum(1 for line in gateway.logs() if issuer.url in line.get("message", "")) == 2


def test_keys_are_known_before_the_first_token(start_gateway: StartGateway, tmp_path: Path) -> None:
    """A gateway that has seen no token yet lives through an outage of the issuer as any other does."""
    with IssuerServer() as issuer:
        issuer.publish(KEY)
        gateway = start_gateway([*SERVES, of(issuer.url)], env=trusting(tmp_path, issuer))
        eventually(lambda: issuer.fetches() == 1)
        issuer.stop()  # what it has begun to answer it answers
        assert ask(gateway, KEY.token(claims(issuer.url))).status == 200
        assert issuer.fetches() == 1


def test_tenants_come_and_go_with_the_registry(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Without a restart; a gateway that knew no issuer learns of one, and forgets it."""
    with IssuerServer() as issuer:
        issuer.publish(KEY)
        key = new_key()
        plain = [*SERVES, tenant("acme"), api_key("acme-key", key)]
        gateway = start_gateway(plain, key=key, env=trusting(tmp_path, issuer))
        token = KEY.token(claims(issuer.url))
        assert ask(gateway, token).status == 401
        assert issuer.requests == []
        gateway.write_registry([*SERVES, of(issuer.url), api_key("acme-key", key)])
        eventually(lambda: ask(gateway, token).status == 200)
        gateway.write_registry([*SERVES, of(issuer.url, disabled=True), api_key("acme-key", key)])
        eventually(lambda: ask(gateway, token).status == 401)
        gateway.write_registry(plain)
        eventually(lambda: ask(gateway, key).status == 200)
        assert ask(gateway, token).status == 401


def test_a_slow_issuer_holds_up_nobody_else(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Tokens wait for their keys, all for one fetch; API keys are answered meanwhile."""
    with IssuerServer() as issuer:
        issuer.publish(KEY)
        hold = issuer.answers[KEYS_PATH].hold = threading.Event()
        key = new_key()
        documents = [*SERVES, of(issuer.url), api_key("acme-key", key)]
        gateway = start_gateway(documents, key=key, env=trusting(tmp_path, issuer, timeout_s="30"))
        statuses: list[int] = []
        token = KEY.token(claims(issuer.url))
        waiting = [threading.Thread(target=lambda: statuses.append(ask(gateway, token).status)) for _ in range(8)]
        for each in waiting:
            each.start()
        eventually(lambda: KEYS_PATH in issuer.requests)
        for _ in range(10):
            assert ask(gateway, key).status == 200
        assert statuses == []
        hold.set()
        for each in waiting:
            each.join(20)
        assert statuses == [200] * 8
        assert issuer.fetches() == 1


BIG = b" " * 300_000
MISBEHAVIOUR: dict[str, tuple[dict[str, Any], str]] = {
    "discovery-redirects": ({"discovery": Answer(status=302, headers={"location": "/elsewhere"})}, "answered 302"),
    "keys-redirect": ({"keys": Answer(status=307, headers={"location": "/elsewhere"})}, "answered 307"),
    "no-discovery": ({"discovery": Answer(status=404)}, "answered 404"),
    "keys-fail": ({"keys": Answer(b"{}", status=500)}, "answered 500"),
    "discovery-too-large": ({"discovery": Answer(BIG)}, "more than 262144 bytes"),
    "keys-too-large": ({"keys": Answer(BIG)}, "more than 262144 bytes"),
    "slow": ({"keys": Answer(b"{}", hold=threading.Event())}, "it took too long"),
    "compressed": ({"keys": Answer(b"x", headers={"content-encoding": "gzip"})}, "compressed"),
    "another-issuer": ({"described": {"issuer": "https://idp.example"}}, "another issuer's"),
    "keys-over-http": ({"described": {"jwks_uri": "http://localhost/elsewhere"}}, "not an https URL"),
    "keys-in-a-file": ({"described": {"jwks_uri": "file:///etc/passwd"}}, "not an https URL"),
    "keys-with-password": ({"described": {"jwks_uri": "https://a:b@localhost/elsewhere"}}, "not an https URL"),
    "no-keys-named": ({"described": {"jwks_uri": None}}, "names no key set"),
    "discovery-is-text": ({"discovery": Answer(b"hello")}, "no JSON object"),
    "keys-are-text": ({"keys": Answer(b"hello")}, "not a JSON object with keys"),
    "keys-are-a-mapping": ({"keys": Answer(b'{"keys": {}}')}, "no list"),
    "cut": ({"keys": Answer(b"{}", headers={"content-length": "500"})}, "RemoteProtocolError"),
}


def test_issuers_that_misbehave(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Each is refused for its own reason, said once; nothing is fetched from elsewhere, and others serve on."""
    with IssuerServer() as good, IssuerServer() as untrusted, refusing_port() as closed:
        untrusted.publish(KEY)
        good.publish(KEY)
        reasons = {f"{good.url}/{name}": reason for name, (_, reason) in MISBEHAVIOUR.items()}
        reasons |= {untrusted.url: "certificate verify failed", f"https://localhost:{closed}": "connect"}
        for name, (answers, _) in MISBEHAVIOUR.items():
            url, base = f"{good.url}/{name}", f"/{name}"
            described = {"issuer": url, "jwks_uri": f"{url}/keys"} | answers.get("described", {})
            good.answers[base + WELL_KNOWN] = answers.get("discovery", Answer(json.dumps(described).encode()))
            good.answers[base + "/keys"] = answers.get("keys", good.answers[KEYS_PATH])
        tenants = [of(issuer, f"tenant-{number}") for number, issuer in enumerate(reasons)]
        env = trusting(tmp_path, good, timeout_s="3")
        gateway = start_gateway([*SERVES, of(good.url), *tenants], env=env)
        assert ask(gateway, KEY.token(claims(good.url))).status == 200
        for number, (issuer, reason) in enumerate(reasons.items()):
            token = KEY.token(claims(issuer, tenant=f"tenant-{number}"))
            assert ask(gateway, token).status == 401, issuer
            assert ask(gateway, token).status == 401, issuer
            line = gateway.wait_for_log(partial(_says, issuer))
            assert reason in line["message"]
            assert line["level"] == "warning"
        for issuer in reasons:
            assert sum(1 for line in gateway.logs() if _says(issuer, line)) == 1
        assert "/elsewhere" not in good.requests
        assert ask(gateway, KEY.token(claims(good.url))).status == 200


def _says(issuer: str, line: LogLine) -> bool:
    return str(line.get("message", "")).startswith(f"no keys from issuer {issuer}: ")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_name_of_the_certificate_counts(start_gateway: StartGateway, tmp_path: Path, name: str) -> None:
    """A trusted authority is not enough: the certificate is for the issuer's host, or the keys are not fetched."""
    with IssuerServer() as issuer:
        issuer.publish(KEY)
        url = issuer.url.replace("localhost", name)
        issuer.answers[WELL_KNOWN] = issuer.discovery(issuer=url, jwks_uri=url + KEYS_PATH)
        gateway = start_gateway([*SERVES, of(url)], env=trusting(tmp_path, issuer))
        assert ask(gateway, KEY.token(claims(url))).status == (200 if name == "localhost" else 401)
        assert AUDIENCE not in gateway.output()
