"""The admin API on the command line, against a running gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.cli.admin_client import table
from gateway.cli.commands import build
from gateway.registry import checksum_ok, key_digest
from tests.support.admin import ADMIN_ENV, READ_TOKEN, TOKEN, opens
from tests.support.documents import echo_registry, new_key
from tests.support.gateway import GatewayProcess
from tests.support.waiting import refusing_port

KEY = new_key()


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    """A gateway with tokens and an embedded Valkey."""
    with GatewayProcess(echo_registry(KEY), env=ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": "embedded"}) as process:
        yield process


@pytest.fixture(autouse=True)
def outside(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What an operator has set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_URL", gateway.management_url)
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_TOKEN", TOKEN)


def run(*arguments: str | Path, fails: bool = False) -> Result:
    """Run ``llm-gateway`` with these arguments."""
    result = CliRunner().invoke(build(), [str(argument) for argument in arguments])
    assert (result.exit_code != 0) is fails, (result.stdout, result.stderr, result.exception)
    return result


def test_a_key_from_birth_to_end(gateway: GatewayProcess) -> None:
    """Made, listed, shown, rotated and revoked; standard output of a new key is the key alone."""
    made = run("admin", "keys", "create", "--tenant", "acme", "--name", "ci", "--scenario", "chat")
    key = made.stdout.strip()
    assert checksum_ok(key)
    assert key not in made.stderr
    assert opens(gateway, key) == 200
    rows = run("admin", "keys", "list").stdout.splitlines()
    assert rows[0].split() == ["NAME", "TENANT", "STATE", "SOURCE", "EXPIRES", "SCENARIOS", "LIMITS"]
    assert [row.split() for row in rows[1:]] == [
        ["acme-key", "acme", "live", "files", "-", "all", "-"],
        ["ci", "acme", "live", "api", "-", "chat", "-"],
    ]
    fresh = run("admin", "keys", "rotate", "ci", "--grace", "1h").stdout.strip()
    assert (opens(gateway, key), opens(gateway, fresh)) == (200, 200)
    assert key_digest(fresh).hex() in run("admin", "keys", "show", "ci").stdout
    assert "revoked" in run("admin", "keys", "revoke", "ci").stdout
    assert (opens(gateway, key), opens(gateway, fresh)) == (401, 401)


def test_an_export_is_what_the_registry_loads(tmp_path: Path) -> None:
    """Under both names of the command, to a file that must be new."""
    run("admin", "keys", "create", "--tenant", "acme", "--name", "kept", "--expires-at", "2199-01-01T00:00:00Z")
    printed = run("keys", "export").stdout
    assert printed == run("admin", "keys", "export").stdout
    (document,) = [each for each in yaml.safe_load_all(printed) if each["metadata"]["name"] == "kept"]
    assert document["spec"]["digests"][0]["expiresAt"] == "2199-01-01T00:00:00Z"
    path = tmp_path / "keys.yaml"
    run("keys", "export", "--write", path)
    assert path.read_text() == printed
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "base.yaml").write_text(yaml.safe_dump_all(echo_registry(KEY)))
    (folder / "keys.yaml").write_text(printed)
    assert "ApiKey" in run("registry", "validate", folder).stdout
    assert "File exists" in run("keys", "export", "--write", path, fails=True).stderr


def test_tenants_and_answers_as_json() -> None:
    """A table for people, JSON for programs."""
    assert run("admin", "tenants").stdout.splitlines()[1].split()[:3] == ["acme", "false", "1"]
    assert json.loads(run("admin", "--json", "tenants").stdout)["tenants"][0]["name"] == "acme"


def test_a_digest_is_revoked_by_itself() -> None:
    """That of a key in the files, too; name and digest together make no sense."""
    digest = key_digest(new_key()).hex()
    assert digest in run("admin", "keys", "revoke", "--sha256", digest).stdout
    for wrong in ([], ["ci", "--sha256", digest]):
        assert run("admin", "keys", "revoke", *wrong, fails=True).exit_code == 2


def test_the_token_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given as an option or as a setting; never as an argument that a list of processes shows."""
    monkeypatch.delenv("LLM_GATEWAY_ADMIN_TOKEN")
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    run("admin", "--token-file", path, "keys", "list")
    assert "--token-file" in run("admin", "--token-file", tmp_path / "none", "keys", "list", fails=True).stderr
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_TOKEN_FILE", str(path))
    run("admin", "keys", "list")
    monkeypatch.delenv("LLM_GATEWAY_ADMIN_TOKEN_FILE")
    assert "there is no token" in run("admin", "keys", "list", fails=True).stderr
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_READ_TOKEN", READ_TOKEN)
    run("admin", "keys", "list")
    assert "may look and not change" in run("admin", "keys", "revoke", "acme-key", fails=True).stderr


def test_a_refusal_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway said, that it is not there, or that the token is wrong; the token is in none of them."""
    refused = run("admin", "keys", "revoke", "acme-key", fails=True).stderr
    assert refused == ("error: The key acme-key is in the registry's files: change it there, or revoke its digest.\n")
    with refusing_port() as port:
        address = f"http://127.0.0.1:{port}"
        gone = run("admin", "--url", address, "tenants", fails=True).stderr
    assert gone.startswith(f"error: the gateway at {address} cannot be reached")
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_TOKEN", "another-wrong-token")
    wrong = run("admin", "tenants", fails=True).stderr
    assert "token of the admin API is needed" in wrong
    assert "another-wrong-token" not in wrong


def test_help_needs_neither_gateway_nor_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every command."""
    monkeypatch.delenv("LLM_GATEWAY_ADMIN_TOKEN")
    for words in (["tenants"], ["usage"], ["keys", "create"], ["keys", "revoke"], ["limits", "reset"]):
        assert run("admin", *words, "--help").stdout.startswith("Usage:")


def test_columns_are_as_wide_as_what_they_hold() -> None:
    """Numbers to the right; what could move the cursor is shown in quotes."""
    assert table(("name", "count"), [("a", 1), ("longer", 22)]).splitlines() == [
        "NAME    COUNT",
        "a           1",
        "longer     22",
    ]
    assert table(("a", "b"), [("x\x1b[2J", None)]).splitlines()[1] == "'x\\x1b[2J'  -"
    assert table(("a",), []) == "nothing"
