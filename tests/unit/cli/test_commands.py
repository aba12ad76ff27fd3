"""What an operator sees of each command."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway import __version__, clock
from gateway.cli.commands import build
from gateway.errors import SettingsInvalid
from gateway.registry import checksum_ok, key_digest, load_folder
from gateway.settings import SecretReader, Settings
from gateway.settings.sources import option_name
from tests.support.waiting import free_port


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(build(), [str(argument) for argument in arguments])


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A folder with a tenant and nothing wrong."""
    folder = tmp_path / "registry"
    folder.mkdir()
    head = "apiVersion: llmgateway.dev/v1alpha1\n"
    (folder / "tenant.yaml").write_text(head + 'kind: Tenant\nmetadata: {name: acme}\nspec: {scenarios: ["*"]}\n')
    (folder / "all.yaml").write_text(
        head
        + "kind: Backend\nmetadata: {name: echo}\nspec: {provider: echo}\n---\n"
        + head
        + "kind: Scenario\nmetadata: {name: chat}\n"
        + 'spec: {targets: [{backend: echo, weight: 1}], access: {tenants: ["*"]}}\n'
    )
    return folder


def test_version_is_printed() -> None:
    """The version of the package and of Python."""
    assert run("version").stdout.startswith(f"llm-gateway {__version__} (Python 3.")
    assert run("--version").stdout == run("version").stdout


def test_each_setting_is_an_option_of_serve() -> None:
    """Help names every option with its variable."""
    text = "".join(run("serve", "--help").stdout.split())
    for name in Settings.model_fields:
        assert option_name(name) in text
        assert f"[LLM_GATEWAY_{name.upper()}" in text


def test_key_is_printed_once_and_its_document_holds_only_the_digest() -> None:
    """Standard output is the key and the document; what is said about them goes to standard error."""
    result = run("keys", "create", "--tenant", "acme", "--name", "acme-ci", "--scenario", "a", "--scenario", "b.c")
    key, _, document = result.stdout.partition("\n")
    assert checksum_ok(key)
    assert key not in document
    assert key not in result.stderr
    assert yaml.safe_load(document) == {
        "apiVersion": "llmgateway.dev/v1alpha1",
        "kind": "ApiKey",
        "metadata": {"name": "acme-ci"},
        "spec": {"tenant": "acme", "digests": [{"sha256": key_digest(key).hex()}], "scenarios": ["a", "b.c"]},
    }


def test_written_document_opens_the_tenant(registry: Path) -> None:
    """What ``--write`` writes is what the registry loads; the expiry is kept."""
    result = run(
        "keys", "create", "--tenant", "acme", "--expires-at", "2199-01-01T00:00:00Z", "--write", registry / "k.yaml"
    )
    key = result.stdout.strip()
    loaded = load_folder(registry, SecretReader(Settings.load()), None, clock.wall())
    assert loaded.problems == ()
    entry = loaded.snapshot.keys[key_digest(key)]
    assert entry.principal.tenant.name == "acme"
    assert entry.expires_at == 7226582400


def test_existing_document_is_not_overwritten(registry: Path) -> None:
    """A key that somebody uses cannot be lost to a slip; no key is shown that is stored nowhere."""
    before = (registry / "tenant.yaml").read_text()
    result = run("keys", "create", "--tenant", "acme", "--write", registry / "tenant.yaml")
    assert result.exit_code == 2
    assert "File exists" in result.stderr
    assert result.stdout == ""
    assert (registry / "tenant.yaml").read_text() == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--tenant", "Acme"),
        ("--name", "-x"),
        ("--scenario", "a b"),
        ("--expires-at", "soon"),
        ("--expires-at", "2020-01-01T00:00:00Z"),
    ],
)
def test_wrong_argument_of_a_key_is_named(option: str, value: str) -> None:
    """The option, the value and what was expected; nothing is printed that could be stored."""
    given = {"--tenant": "acme"} | {option: value}
    result = run("keys", "create", *(word for pair in given.items() for word in pair))
    assert result.exit_code == 2
    assert f"Invalid value for {option}: '{value}' must be" in result.stderr
    assert result.stdout == ""


def test_valid_registry_is_counted(registry: Path) -> None:
    """Success says what was found."""
    result = run("registry", "validate", registry)
    assert result.exit_code == 0
    assert result.stdout == f"{registry} is valid: 1 Backend, 1 Scenario, 1 Tenant\n"


def test_every_error_of_a_registry_is_printed(registry: Path) -> None:
    """With file and field, and a non-zero exit."""
    (registry / "bad.yaml").write_text("kind: Tenant\nmetadata: {name: Bad}\nspec: {extra: 1}\n")
    (registry / "worse.yaml").write_text("a: [")
    result = run("registry", "validate", registry)
    assert result.exit_code == 1
    for part in ("bad.yaml", "apiVersion", "metadata.name", "spec.extra", "worse.yaml", "error(s) in"):
        assert part in result.stderr
    assert result.stdout == ""


def test_registry_is_checked_without_its_secrets_unless_asked(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline has none; ``--secrets`` checks what a start would read."""
    (registry / "backend.yaml").write_text(
        "apiVersion: llmgateway.dev/v1alpha1\nkind: Backend\nmetadata: {name: qwen}\nspec: {provider: openai,"
        " url: http://127.0.0.1:1, auth: {type: bearer, secret: {env: LLM_GATEWAY_SECRET_QWEN}}}\n"
    )
    monkeypatch.delenv("LLM_GATEWAY_SECRET_QWEN", raising=False)
    unread = run("registry", "validate", registry)
    assert unread.exit_code == 0
    assert unread.stderr == "note: 1 secret(s) were not read; --secrets reads them, too\n"
    result = run("registry", "validate", "--secrets", registry)
    assert "note:" not in result.stderr
    assert result.exit_code == 1
    assert "LLM_GATEWAY_SECRET_QWEN is not set" in result.stderr
    monkeypatch.setenv("LLM_GATEWAY_SECRET_QWEN", "x")
    assert run("registry", "validate", "--secrets", registry).exit_code == 0


def test_schemas_are_printed_or_written(tmp_path: Path) -> None:
    """One file per kind in a folder that is made where it is missing."""
    printed = json.loads(run("registry", "schema").stdout)
    assert {"backend", "scenario", "prompt", "tenant", "apikey"} <= printed.keys()
    assert run("registry", "schema", "--out", tmp_path / "a" / "b").exit_code == 0
    assert {path.stem: json.loads(path.read_text()) for path in (tmp_path / "a" / "b").iterdir()} == printed
    (tmp_path / "file").touch()
    result = run("registry", "schema", "--out", tmp_path / "file")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_wrong_setting_ends_a_start_with_a_readable_text(tmp_path: Path) -> None:
    """Exit code 2, one line each, no traceback; as a process, as an operator starts it."""
    result = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve", "--workers", "many"],
        env={"LLM_GATEWAY_LISTEN": "nowhere", "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "The settings are wrong:",
        "  LLM_GATEWAY_LISTEN: expected HOST:PORT such as 127.0.0.1:8080 or [::1]:8080, got 'nowhere'",
        "  LLM_GATEWAY_WORKERS (--workers): expected a whole number from 1 to 64, got 'many'",
    ]


@pytest.mark.parametrize(("tenant", "warned"), [("ghost", True), ("acme", False), ("broken", False)])
def test_key_of_a_tenant_that_is_not_there_is_warned_of(
    registry: Path, monkeypatch: pytest.MonkeyPatch, tenant: str, warned: bool
) -> None:
    """A slip in the name is seen when the key is made; the key is made all the same, since a tenant may follow."""
    (registry / "broken.yaml").write_text("kind: Tenant\nmetadata: {name: broken}\n")
    monkeypatch.setenv("LLM_GATEWAY_REGISTRY", str(registry))
    result = run("keys", "create", "--tenant", tenant)
    assert result.exit_code == 0
    assert checksum_ok(result.stdout.partition("\n")[0])
    assert (f"has no tenant '{tenant}'" in result.stderr) is warned


def test_demo_key_is_new_each_time_and_readable_as_the_rest_of_the_registry(registry: Path) -> None:
    """A key of yesterday's demo opens nothing today; a container's user reads it although another made it."""
    from gateway.cli.demo import write_key

    for key in ("lgw_first-key-of-the-demo", "lgw_second-key-of-the-demo"):
        write_key(registry, key)
        path = registry / "local" / "demo.yaml"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        (digest,) = yaml.safe_load(path.read_text())["spec"]["digests"]
        assert digest["sha256"] == key_digest(key).hex()
    assert [path.name for path in (registry / "local").iterdir()] == ["demo.yaml"]


@pytest.mark.parametrize("taken", ["listen", "management_listen"])
def test_demo_leaves_the_key_of_a_gateway_that_runs(registry: Path, taken: str) -> None:
    """Where a port is taken nothing is written: the document there may be what the other gateway serves with."""
    from gateway.cli.demo import demo, write_key

    write_key(registry, "lgw_key-of-the-first")
    before = (registry / "local" / "demo.yaml").read_text()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        free = {"listen": f"127.0.0.1:{free_port()}", "management_listen": "127.0.0.1:0"}
        with pytest.raises(SettingsInvalid, match=f"LLM_GATEWAY_{taken.upper()}: cannot listen on 127.0.0.1, port"):
            demo(Settings.load(registry=registry, **free | {taken: address}), reload=False)
    assert (registry / "local" / "demo.yaml").read_text() == before


def test_demo_prints_a_call_on_one_line() -> None:
    """An address that can be called, the key, and the model, ready to paste."""
    from gateway.cli.demo import call_text

    text = call_text(Settings.load(listen="0.0.0.0:9000", management_listen="[::]:9001"), "lgw_key", "echo")
    (line,) = [line for line in text.splitlines() if line.startswith("curl ")]
    assert "http://127.0.0.1:9000/v1/chat/completions" in line
    assert "-H 'Authorization: Bearer lgw_key'" in line
    assert '"model": "echo"' in line
    assert "http://[::1]:9001/metrics" in text
