"""Where settings come from, what is refused, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.errors import SettingsInvalid
from gateway.settings import Settings
from gateway.settings.explain import bounds
from gateway.settings.sources import Variables, environment_name, extra_of, unknown_names


def complaint(**given: object) -> str:
    """The text of the refusal of these settings."""
    with pytest.raises(SettingsInvalid) as caught:
        Settings.load(**given)
    return str(caught.value)


def test_defaults_are_those_of_the_documents() -> None:
    """The defaults that operators rely on."""
    settings = Settings.load()
    assert settings.registry == Path("registry")
    assert settings.listen_address == ("127.0.0.1", 8080)
    assert settings.management_address == ("127.0.0.1", 8081)
    assert settings.redis_url is None
    assert settings.workers == 1
    assert (settings.drain_s, settings.drain_propagation_delay_s, settings.drain_idle_s) == (600, 5, 2)
    assert settings.max_body_bytes == 20 * 1024 * 1024
    assert settings.cors_allow_origins == ()
    assert settings.docs


def test_every_field_has_a_sentence_and_every_number_a_bound_and_a_unit() -> None:
    """A setting without unit, bound or explanation cannot be added."""
    for name, info in Settings.model_fields.items():
        assert info.description, name
        assert info.description.endswith("."), name
        if isinstance(info.default, int | float) and not isinstance(info.default, bool):
            assert bounds(info), name
            assert extra_of(info)["unit"], name
        for suffix, unit in {"_s": "seconds", "_bytes": "bytes"}.items():
            assert not name.endswith(suffix) or extra_of(info)["unit"] == unit, name


def test_every_bound_is_enforced() -> None:
    """The least and the most are accepted, and nothing beyond them."""
    for name, info in Settings.model_fields.items():
        limits = bounds(info)
        if limits is None:
            continue
        least, most = limits
        for outside in (least - 1, most + 1):
            assert environment_name(name) in complaint(**{name: str(outside)})


def test_sources_win_in_order(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Option, environment, .env of the environment, .env, default."""
    (empty_place / ".env").write_text("LLM_GATEWAY_WORKERS=2\nLLM_GATEWAY_DRAIN_S=20s\nLLM_GATEWAY_MAX_ATTEMPTS=2\n")
    (empty_place / ".env.staging").write_text("LLM_GATEWAY_WORKERS=3\nLLM_GATEWAY_DRAIN_S=30s\n")
    monkeypatch.setenv("LLM_GATEWAY_ENVIRONMENT", "staging")
    monkeypatch.setenv("LLM_GATEWAY_WORKERS", "4")
    settings = Settings.load(workers="5", drain_s=None)
    assert (settings.workers, settings.drain_s, settings.max_attempts, settings.max_connections) == (5, 30, 2, 20000)
    assert Settings.load().workers == 4


@pytest.mark.parametrize("where", ["option", "variable", "file"])
def test_environment_chooses_its_file(where: str, empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the environment is named, its .env file is read."""
    (empty_place / ".env.production").write_text("LLM_GATEWAY_WORKERS=7\n")
    if where == "variable":
        monkeypatch.setenv("LLM_GATEWAY_ENVIRONMENT", "production")
    if where == "file":
        (empty_place / ".env").write_text("LLM_GATEWAY_ENVIRONMENT=production\n")
    settings = Settings.load(environment="production" if where == "option" else None)
    assert (settings.environment, settings.workers) == ("production", 7)


def test_environment_cannot_lead_to_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong environment is refused and never part of a path."""
    monkeypatch.setenv("LLM_GATEWAY_ENVIRONMENT", "x/../../etc")
    assert complaint().startswith("LLM_GATEWAY_ENVIRONMENT: expected one of development, staging, production")


def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployment tools set variables to nothing."""
    monkeypatch.setenv("LLM_GATEWAY_WORKERS", "")
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL", "")
    assert Settings.load().workers == 1
    assert Settings.load().redis_url is None


def test_values_are_not_interpolated(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dollar sign in a value is a dollar sign."""
    monkeypatch.setenv("HERE", "elsewhere")
    (empty_place / ".env").write_text("LLM_GATEWAY_REDIS_URL='redis://:p${HERE}$x@host'\n")
    assert Settings.load().redis_url == "redis://:p${HERE}$x@host"


def test_broken_env_file_names_its_line(empty_place: Path) -> None:
    """A line that is no assignment stops the start."""
    (empty_place / ".env").write_text("LLM_GATEWAY_WORKERS=2\nLLM_GATEWAY_DOCS\n")
    assert complaint() == ".env: line 2: expected NAME=value"
    (empty_place / ".env").write_bytes(b"\xff\xfe")
    assert complaint() == ".env: cannot be read: UnicodeDecodeError"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("listen", ":80", "LLM_GATEWAY_LISTEN: expected HOST:PORT such as 127.0.0.1:8080 or [::1]:8080, got ':80'"),
        ("workers", "0", "LLM_GATEWAY_WORKERS: expected a whole number from 1 to 64, got '0'"),
        ("docs", "perhaps", "LLM_GATEWAY_DOCS: expected true or false, got 'perhaps'"),
        (
            "drain_s",
            "1d",
            "LLM_GATEWAY_DRAIN_S: expected a duration from 0s to 24h, such as 500ms, 30s, 10m or 1h, got '1d'",
        ),
        (
            "max_body_bytes",
            "2GiB",
            "LLM_GATEWAY_MAX_BODY_BYTES: expected a size from 1KiB to 1GiB, such as 64KiB or 20MiB, got '2GiB'",
        ),
        (
            "registry_source",
            "git",
            "LLM_GATEWAY_REGISTRY_SOURCE: expected folder or kubernetes, got",
        ),
        ("secrets_dir", "/nowhere", "LLM_GATEWAY_SECRETS_DIR: expected an existing folder, got '/nowhere'"),
        ("upstream_ca_file", "/", "LLM_GATEWAY_UPSTREAM_CA_FILE: expected an existing file, got '/'"),
        ("default_scenario", "x" * 300, "LLM_GATEWAY_DEFAULT_SCENARIO: expected a name of 1 to 253 characters, got "),
        ("cors_allow_origins", "https://a/b", "LLM_GATEWAY_CORS_ALLOW_ORIGINS: expected origins such as "),
        ("discovery_namespaces", "models,Other", "LLM_GATEWAY_DISCOVERY_NAMESPACES: expected at most 64 names of "),
        (
            "discovery_namespaces",
            ",".join(f"n{n}" for n in range(65)),
            "LLM_GATEWAY_DISCOVERY_NAMESPACES: expected at ",
        ),
        ("trusted_proxies", "10.0.0.1/8", "LLM_GATEWAY_TRUSTED_PROXIES: expected networks such as "),
    ],
)
def test_wrong_value_is_named_with_what_was_expected(
    name: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads which variable is wrong, what it takes and what it had."""
    monkeypatch.setenv(environment_name(name), value)
    assert complaint().startswith(text)
    assert len(complaint()) < 400


def test_wrong_option_is_named_as_option_and_variable() -> None:
    """Whoever typed an option reads that option."""
    assert complaint(workers="0").startswith("LLM_GATEWAY_WORKERS (--workers): expected")


def test_every_wrong_value_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start shows all that has to be fixed."""
    monkeypatch.setenv("LLM_GATEWAY_WORKERS", "0")
    monkeypatch.setenv("LLM_GATEWAY_LISTEN", "x")
    assert [line.partition(":")[0] for line in complaint().splitlines()] == [
        "LLM_GATEWAY_LISTEN",
        "LLM_GATEWAY_WORKERS",
    ]


@pytest.mark.parametrize("url", ["http://:hunter2@host", "hunter2"])
def test_wrong_secret_is_not_shown(url: str, empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of a setting that may hold a credential is in no text."""
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL", url)
    assert complaint() == (
        "LLM_GATEWAY_REDIS_URL: expected redis://, rediss://, unix:// with an address, the first two also with"
        " +sentinel or +cluster, or the word embedded"
    )
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL", "redis://:hunter2@host")
    assert "hunter2" not in repr(Settings.load())


def test_secret_is_read_from_a_file(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One newline at the end is not part of it."""
    (empty_place / "url").write_text("redis://:p@host\n")
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL_FILE", str(empty_place / "url"))
    assert Settings.load().redis_url == "redis://:p@host"
    assert Settings.load().unknown_variables() == ()
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL", "redis://other")
    assert complaint().startswith("LLM_GATEWAY_REDIS_URL: expected either")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"x" * 70000])
def test_secret_file_that_cannot_be_used_is_named(
    content: bytes | None, empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, empty, not text or too large: the text names the variable and the file."""
    path = empty_place / "url"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL_FILE", str(path))
    assert complaint().startswith(f"LLM_GATEWAY_REDIS_URL_FILE: expected a readable file with the value: {path}: ")


def test_two_listeners_need_two_addresses() -> None:
    """The same port is refused, on every address too; a free port may be taken twice."""
    text = "LLM_GATEWAY_MANAGEMENT_LISTEN: expected another address than LLM_GATEWAY_LISTEN"
    assert complaint(listen="127.0.0.1:1", management_listen="127.0.0.1:1").startswith(text)
    assert complaint(listen="0.0.0.0:1", management_listen="127.0.0.1:1").startswith(text)
    assert Settings.load(listen="127.0.0.1:0", management_listen="127.0.0.1:0").listen_address.port == 0
    assert Settings.load(listen="127.0.0.1:1", management_listen="127.0.0.2:1").management_address.port == 1


def test_parts_do_not_exceed_the_whole() -> None:
    """The delay is a part of the drain, and idle connections are connections."""
    assert complaint(drain_s="3s", drain_propagation_delay_s="4s") == (
        "LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S: expected at most LLM_GATEWAY_DRAIN_S (3s), which includes it, got '4s'"
    )
    assert complaint(upstream_max_connections=10).startswith("LLM_GATEWAY_UPSTREAM_MAX_IDLE_CONNECTIONS: expected at")


def test_default_delay_gives_way_to_a_short_drain() -> None:
    """Who sets the drain alone need not know of the delay."""
    settings = Settings.load(drain_s="1s")
    assert (settings.drain_s, settings.drain_propagation_delay_s) == (1, 1)
    assert Settings.load(drain_s="6s").drain_propagation_delay_s == 5


def test_defaults_of_a_command_count_where_nothing_else_does(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below options, variables, files with a secret and .env; a process that is given the settings sees them."""
    defaults = {"redis_url": "embedded", "drain_propagation_delay_s": "0s"}
    settings = Settings.load(defaults)
    assert (settings.redis_url, settings.drain_propagation_delay_s) == ("embedded", 0)
    assert settings.as_environment()["LLM_GATEWAY_REDIS_URL"] == "embedded"
    (empty_place / ".env").write_text("LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S=2s\nLLM_GATEWAY_DRAIN_S=3s\n")
    (empty_place / "url").write_text("redis://host\n")
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL_FILE", str(empty_place / "url"))
    settings = Settings.load(defaults)
    assert (settings.redis_url, settings.drain_propagation_delay_s) == ("redis://host", 2)
    assert Settings.load(defaults, drain_propagation_delay_s="1s").drain_propagation_delay_s == 1


def test_misspelt_option_is_refused() -> None:
    """A setting that does not exist is an error where the code names it."""
    assert complaint(worker=3) == "worker: there is no such setting"


def test_unknown_variables_are_named_and_kubernetes_own_are_not(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Misspelt names are found in the environment and in .env.

    What Kubernetes injects beside Services is not, nor what the documents call a caller's key.
    """
    (empty_place / ".env").write_text("LLM_GATEWAY_WROKERS=2\nOTHER=1\n")
    for name in (
        "LLM_GATEWAY_PORT",
        "LLM_GATEWAY_PORT_8080_TCP",
        "LLM_GATEWAY_PORT_8080_TCP_ADDR",
        "LLM_GATEWAY_SERVICE_HOST",
        "LLM_GATEWAY_SERVICE_PORT",
        "LLM_GATEWAY_SERVICE_PORT_HTTP",
        "LLM_GATEWAY_MANAGEMENT_PORT",
        "LLM_GATEWAY_MANAGEMENT_SERVICE_HOST",
        "LLM_GATEWAY_SECRET_OPENAI",
        "LLM_GATEWAY_KEY",
        "LLM_GATEWAY_LISTENS",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    assert Settings.load().unknown_variables() == ("LLM_GATEWAY_LISTENS", "LLM_GATEWAY_WROKERS")


def test_no_setting_has_a_name_that_kubernetes_injects() -> None:
    """Beside a Service named llm-gateway no setting is overwritten."""
    for name in Settings.model_fields:
        assert unknown_names([Variables("", {environment_name(name): "x"})], {}) == (environment_name(name),)


def test_settings_are_frozen() -> None:
    """A value that was checked stays what it was."""
    with pytest.raises(ValidationError):
        Settings.load().workers = 3


def test_environment_for_another_process_loads_the_same(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What options said reaches a process that reads variables."""
    (empty_place / "url").write_text("embedded")
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL_FILE", str(empty_place / "url"))
    settings = Settings.load(trusted_proxies="10.0.0.0/8,::1", drain_s="90s", docs=False, listen="127.0.0.1:9")
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    for name in os.environ.keys() - settings.as_environment().keys():
        monkeypatch.delenv(name)
    assert Settings.load().model_dump() == settings.model_dump()
