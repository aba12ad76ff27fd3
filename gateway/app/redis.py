"""The lane to Redis that the settings ask for, and how it counts.

Invariant: what is wrong with the address or the CA file is found here, with the name of the setting, before anything
serves; that a server cannot be reached is no error of the settings.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import SettingsInvalid
from gateway.redis.config import RedisConfig, parse_url
from gateway.settings.sources import environment_name

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.redis.lane import RedisLane
    from gateway.redis.observer import Failure, Notice
    from gateway.settings import Settings
    from gateway.telemetry import CacheMetrics, Metrics


def redis_config(settings: Settings, url: str, *, field: str = "redis_url") -> RedisConfig:
    """Where Redis is and the bounds of the lane; ``url`` is the embedded server's where that one is used.

    Raises SettingsInvalid, which names the setting that ``field`` is and never quotes the address.
    """
    try:
        server = parse_url(url)
    except ValueError as error:
        raise SettingsInvalid(f"{environment_name(field)}: {error}") from None
    return RedisConfig(
        server=server,
        deadline_s=settings.redis_deadline_s,
        connect_timeout_s=settings.redis_connect_timeout_s,
        probe_s=settings.redis_probe_s,
        failures_max=settings.redis_failures_max,
        pending_max=settings.redis_pending_max,
        check_s=settings.redis_check_s,
        ca_file=settings.redis_ca_file,
        credentials_file=settings.redis_credentials_file,
        url_file=settings.file_of(field) if url == getattr(settings, field) else None,
        purpose="limits",
    )


def check_redis(settings: Settings) -> None:
    """Raises SettingsInvalid where an address or a CA file of Redis cannot be used: a worker would find it late."""
    if settings.redis_url is not None and settings.redis_url != "embedded":
        redis_config(settings, settings.redis_url)
    if settings.cache_redis_url is not None:
        cache_config(settings, None)
    for field in ("redis_ca_file", "cache_redis_ca_file"):
        path: Path | None = getattr(settings, field)
        if path is not None:
            _check_authorities(path, field)


def _check_authorities(path: Path, field: str) -> None:
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:
        raise _no_authorities(field, error) from None


def _no_authorities(field: str, error: OSError) -> SettingsInvalid:
    return SettingsInvalid(f"{environment_name(field)}: expected a PEM file with certificates: {error}")


def redis_lane(settings: Settings, url: str | None, metrics: Metrics) -> RedisLane | None:
    """The lane, not yet started, or None without a Redis. Raises SettingsInvalid. Made inside the event loop."""
    if url is None:
        return None
    from gateway.redis.lane import RedisLane  # a gateway without a Redis loads none of it

    try:
        return RedisLane(redis_config(settings, url), RedisCounts(metrics))
    except OSError as error:
        raise _no_authorities("redis_ca_file", error) from None


def cache_config(settings: Settings, redis_url: str | None) -> RedisConfig | None:
    """Where answers are kept, None for nowhere: a server of its own, else the one of the limits at ``redis_url``.

    Raises SettingsInvalid, which never quotes the address.
    """
    own, deadline_s = settings.cache_redis_url, settings.cache_redis_deadline_s
    if own is not None:
        return msgspec.structs.replace(
            redis_config(settings, own, field="cache_redis_url"),
            deadline_s=deadline_s,
            ca_file=settings.cache_redis_ca_file or settings.redis_ca_file,
            credentials_file=settings.cache_redis_credentials_file,
            purpose="cache",
        )
    if redis_url is not None:
        return msgspec.structs.replace(redis_config(settings, redis_url), deadline_s=deadline_s, purpose="cache")
    return None


def cache_lane(settings: Settings, redis_url: str | None, metrics: CacheMetrics) -> RedisLane | None:
    """The lane of the cache, not yet started, or None without a Redis. Raises SettingsInvalid."""
    config = cache_config(settings, redis_url)
    if config is None:
        return None
    from gateway.redis.lane import RedisLane  # a gateway without a Redis loads none of it

    try:
        return RedisLane(config, CacheCounts(metrics))
    except OSError as error:
        field = "redis_ca_file" if settings.cache_redis_ca_file is None else "cache_redis_ca_file"
        raise _no_authorities(field, error) from None


class CacheCounts:
    """Counts what the lane of the cache tells: its failures alone, since nothing of the limits hangs on it."""

    def __init__(self, metrics: CacheMetrics) -> None:
        self._metrics = metrics

    def answered(self, seconds: float) -> None:
        """See Observer."""

    def failed(self, how: Failure, count: int) -> None:
        """See Observer."""
        self._metrics.redis_failed(how, count)

    def unavailable(self, servers: int) -> None:
        """See Observer."""

    def noticed(self, what: Notice) -> None:
        """See Observer."""

    def evicting(self, servers: int) -> None:
        """See Observer: of kept answers any may go."""


class RedisCounts:
    """Counts what a lane tells (``gateway.redis.observer.Observer``)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.answered = metrics.redis_answered  # not one call more for every read

    def failed(self, how: Failure, count: int) -> None:
        """See Observer."""
        self._metrics.redis_failed(how, count)

    def unavailable(self, servers: int) -> None:
        """See Observer."""
        self._metrics.redis_unavailable(servers)

    def evicting(self, change: int) -> None:
        """See Observer."""
        self._metrics.states.redis_evicting(change)

    def noticed(self, what: Notice) -> None:
        """See Observer."""
        self._metrics.redis_noticed(what)
