"""The lane that settings ask for, and what it counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from gateway.app.redis import RedisCounts, cache_config, check_redis, redis_config, redis_lane
from gateway.errors import SettingsInvalid
from gateway.redis.config import Address, RedisConfig, Server
from gateway.redis.observer import Observer
from gateway.settings import Settings
from gateway.telemetry import Metrics

URL = "redis://:hunter2@cache:7000/2"


def metrics() -> Metrics:
    """Metrics of nobody."""
    return Metrics(version="0")


def test_every_bound_of_the_lane_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of the configuration that no setting reaches would be a bound that nobody can change."""
    file = tmp_path / "file"
    file.write_text(URL)
    monkeypatch.setenv("LLM_GATEWAY_REDIS_URL_FILE", str(file))
    settings = Settings.load(
        redis_deadline_s=0.2,
        redis_connect_timeout_s=3,
        redis_probe_s=2,
        redis_failures_max=7,
        redis_pending_max=500,
        redis_check_s=9,
        redis_ca_file=file,
        redis_credentials_file=file,
    )
    config = redis_config(settings, URL)
    assert config.server.addresses == (Address("cache", 7000),)
    assert config.server.db == 2
    plain = RedisConfig(server=Server("single", ()))
    for name in RedisConfig.__struct_fields__:
        assert getattr(config, name) != getattr(plain, name), name


def test_the_cache_has_credentials_and_authorities_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never those of the limits' server, but for its authorities where it has none; its address is watched, too."""
    limits, cache, url = (tmp_path / name for name in ("limits", "cache", "url"))
    for file in (limits, cache):
        file.write_text("x")
    url.write_text("rediss://:hunter2@answers:7001")
    files = {"redis_url": URL, "redis_credentials_file": limits, "redis_ca_file": limits}
    same = msgspec.structs.replace(redis_config(Settings.load(**files), URL), purpose="cache")
    assert cache_config(Settings.load(**files), URL) == same, "where limits are"
    monkeypatch.setenv("LLM_GATEWAY_CACHE_REDIS_URL_FILE", str(url))
    config = cache_config(Settings.load(**files), URL)
    assert config is not None
    assert config.server.addresses == (Address("answers", 7001),)
    assert (config.credentials_file, config.ca_file, config.url_file) == (None, limits, url)
    config = cache_config(
        Settings.load(**files, cache_redis_credentials_file=cache, cache_redis_ca_file=cache), "redis://other"
    )
    assert config is not None
    assert (config.credentials_file, config.ca_file) == (cache, cache)


def test_a_wrong_address_or_file_of_the_cache_is_named(tmp_path: Path) -> None:
    """Before anything serves, and without the address."""
    with pytest.raises(SettingsInvalid, match="^LLM_GATEWAY_CACHE_REDIS_URL: ") as refusal:
        check_redis(Settings.load(cache_redis_url="redis://:hunter2@a,b"))
    assert "hunter2" not in str(refusal.value)
    file = tmp_path / "ca.pem"
    file.write_text("nonsense")
    with pytest.raises(SettingsInvalid, match="^LLM_GATEWAY_CACHE_REDIS_CA_FILE: "):
        check_redis(Settings.load(cache_redis_url="rediss://cache", cache_redis_ca_file=file))


def test_defaults_are_those_of_the_lane() -> None:
    """What the code says without settings is what the settings say."""
    settings = Settings.load(redis_url=URL)
    config = redis_config(settings, URL)
    assert config == RedisConfig(server=config.server, purpose="limits")


@pytest.mark.parametrize("url", ["redis://:hunter2@a,b", "redis+cluster://:hunter2@a/3", "redis://:hunter2@a:0"])
def test_a_wrong_address_is_named_and_not_quoted(url: str) -> None:
    """It passes the first look of the settings, which only see its form."""
    with pytest.raises(SettingsInvalid, match="^LLM_GATEWAY_REDIS_URL: ") as refusal:
        redis_config(Settings.load(redis_url=url), url)
    assert "hunter2" not in str(refusal.value)


def test_a_lane_only_with_a_redis(tmp_path: Path) -> None:
    """Without one there is none; with a CA file that is none nothing starts."""

    async def main() -> None:
        assert redis_lane(Settings.load(), None, metrics()) is None
        lane = redis_lane(Settings.load(redis_url=URL), URL, metrics())
        assert lane is not None
        assert lane.available
        file = tmp_path / "ca.pem"
        file.write_text("nonsense")
        with pytest.raises(SettingsInvalid, match="^LLM_GATEWAY_REDIS_CA_FILE: "):
            redis_lane(Settings.load(redis_url=URL, redis_ca_file=file), "rediss://cache", metrics())

    asyncio.run(main())


def test_what_the_lane_tells_is_counted() -> None:
    """Each under its own name."""
    counted = metrics()
    observer: Observer = RedisCounts(counted)
    observer.answered(0.002)
    observer.failed("unanswered", 3)
    observer.failed("unavailable", 1)
    observer.unavailable(2)
    observer.noticed("promoted")
    scrape = counted.render()[0].decode()
    for line in (
        "llm_gateway_redis_seconds_count 1.0",
        'llm_gateway_redis_failures_total{reason="unanswered"} 3.0',
        'llm_gateway_redis_failures_total{reason="unavailable"} 1.0',
        "llm_gateway_redis_unavailable_servers 2.0",
        'llm_gateway_redis_notices_total{notice="promoted"} 1.0',
    ):
        assert line in scrape.splitlines(), line
