"""What is told of the registry, and what a worker that was forked late serves."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from gateway.app.serve import warn_of_settings
from gateway.app.source import FolderWatch
from gateway.errors import RegistryInvalid
from gateway.settings import Settings
from tests.support.documents import Document, echo_backend, echo_registry, new_key, scenario


def write(folder: Path, documents: list[Document]) -> None:
    """Replace the registry."""
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(documents))


def watch(folder: Path) -> FolderWatch:
    """A loaded registry."""
    registry = FolderWatch(Settings.load(registry=folder, drain_s="60"))
    registry.load()
    return registry


def test_backends_that_a_drain_would_cut_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In one warning, which a reload does not repeat."""
    patient = echo_backend("waiting", timeouts={"total": "1m"}, queue={"wait": "1s"})
    write(tmp_path, [echo_backend("quick", timeouts={"total": "1m"}), echo_backend("slow"), patient])
    with caplog.at_level(logging.WARNING, "gateway.registry"):
        registry = watch(tmp_path)
        registry.refresh()
    warnings = [record.getMessage() for record in caplog.records if "LLM_GATEWAY_DRAIN_S" in record.getMessage()]
    assert len(warnings) == 1
    assert "slow, waiting" in warnings[0]
    assert "quick" not in warnings[0]


def test_a_default_scenario_that_does_not_exist_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the start and after a reload that took it away; a name and an alias are fine."""
    documents = [echo_backend("echo"), scenario("chat", "echo", aliases=["gpt"])]
    write(tmp_path, documents)

    def warned(default: str) -> bool:
        caplog.clear()
        registry = FolderWatch(Settings.load(registry=tmp_path, default_scenario=default))
        with caplog.at_level(logging.WARNING, "gateway.registry"):
            registry.load()
        return f"LLM_GATEWAY_DEFAULT_SCENARIO: the registry has no scenario and no alias '{default}'" in caplog.text

    assert [warned(name) for name in ("chat", "gpt", "chta")] == [False, False, True]
    registry = FolderWatch(Settings.load(registry=tmp_path, default_scenario="gpt"))
    registry.load()
    caplog.clear()
    write(tmp_path, documents[:1])
    with caplog.at_level(logging.WARNING, "gateway.registry"):
        registry.refresh()
    assert "no alias 'gpt'" in caplog.text


@pytest.mark.parametrize("of_key", [False, True])
def test_limits_without_a_redis_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, of_key: bool
) -> None:
    """With one, or without limits, there is nothing to say; the address is never shown."""
    documents = echo_registry(new_key())

    def warned(url: str | None) -> bool:
        caplog.clear()
        write(tmp_path, documents)
        with caplog.at_level(logging.INFO):
            warn_of_settings(Settings.load(redis_url=url))
            registry = FolderWatch(Settings.load(registry=tmp_path, redis_url=url))
            registry.load()
            registry.refresh()
        assert "hunter2" not in caplog.text
        return caplog.text.count("onRedisLoss") == 1

    assert not warned(None)
    documents[3 if of_key else 2]["spec"]["limits"] = [{"unit": "requests", "per": "day", "amount": 1}]
    assert warned(None)
    assert not warned("redis://:hunter2@host:6379")
    assert not warned("embedded")


def test_caches_without_a_redis_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is kept there; with either Redis, or without a cache, there is nothing to say."""
    keeping = [scenario(name, "main", cache={"mode": "exact"}) for name in ("support", "faq")]
    documents = echo_registry(new_key())

    def warned(held: list[Document], **settings: str) -> bool:
        caplog.clear()
        write(tmp_path, held)
        with caplog.at_level(logging.WARNING, "gateway.registry"):
            registry = FolderWatch(Settings.load(registry=tmp_path, **settings))
            registry.load()
            registry.refresh()
        assert "hunter2" not in caplog.text
        return caplog.text.count("scenarios faq, support have a cache") == 1

    assert not warned(documents)
    assert warned(documents + keeping)
    for setting in ("redis_url", "cache_redis_url"):
        assert not warned(documents + keeping, **{setting: "redis://:hunter2@host:6379"})


def test_a_refresh_takes_what_the_folder_holds_now(tmp_path: Path) -> None:
    """As a worker does that replaces one that died."""
    write(tmp_path, echo_registry(new_key()))
    registry = watch(tmp_path)
    write(tmp_path, [echo_backend("only")])
    registry.refresh()
    assert set(registry.snapshot.backends) == {"only"}
    assert not registry.snapshot.keys


def test_a_refresh_from_a_bad_folder_keeps_what_there_was(tmp_path: Path) -> None:
    """A worker starts whatever the state of the files."""
    write(tmp_path, [echo_backend("good")])
    registry = watch(tmp_path)
    (tmp_path / "bad.yaml").write_text("kind: Nonsense")
    registry.refresh()
    assert set(registry.snapshot.backends) == {"good"}
    with pytest.raises(RegistryInvalid):
        watch(tmp_path)


def test_a_setting_of_the_cluster_is_told_to_have_no_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A backend of a folder may name no service, so nothing is there to be discovered."""
    write(tmp_path, echo_registry(new_key()))
    with caplog.at_level(logging.WARNING, "gateway.registry"):
        FolderWatch(Settings.load(registry=tmp_path, discovery_namespaces="models")).load()
    assert any("LLM_GATEWAY_DISCOVERY_NAMESPACES has no effect" in record.getMessage() for record in caplog.records)
