"""What the admin API leaves in Redis, laid over the registry: in every gateway with a Redis, with a token or without.

The paths of the API exist with a token only, see ``admin_routes``. Invariant: a gateway that has a token judges no key
before it knows what was revoked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gateway.app.admin_gate import AdminTokens
from gateway.app.fleet import FleetLoad
from gateway.app.redis import cache_config, redis_config
from gateway.app.tasks import BackgroundTasks
from gateway.registry.keystore import KeyStore
from gateway.registry.keysync import KeySync
from gateway.settings import Settings, rotated_secret
from gateway.settings.schema import is_token

if TYPE_CHECKING:
    from gateway.app.key_operations import Audit, KeyOperations
    from gateway.app.launch import Inherited
    from gateway.redis.config import RedisConfig
    from gateway.redis.lane import RedisLane
    from gateway.rollout import Rollouts
    from gateway.telemetry import Metrics

_TOKENS: Final = ("admin_token", "admin_read_token")

DEADLINE_S: Final = 1.0
"""How long Redis may take for a command of operators, at least: nobody's request waits for it."""


class Administration:
    """Keys in Redis, kept up to date, and what the admin API works with. Made inside the event loop.

    ``lane`` is a patient lane, for whatever no request to a model waits for; None without a Redis. ``process`` is the
    name of this process among those of the fleet. ``cache_lane`` is a lane to where answers are kept.
    """

    def __init__(self, inherited: Inherited, metrics: Metrics, process: str) -> None:
        settings, registry, redis_url = inherited.settings, inherited.registry, inherited.redis_url
        self.tokens: AdminTokens | None = None
        if settings.admin_token or settings.admin_read_token:
            self.tokens = AdminTokens(*(rotated_secret(settings, name, is_token) for name in _TOKENS))
        self.registry = registry
        self._keys_max = settings.keys_max
        self._write_keys = settings.registry_write_keys
        self.usage_rows_max = settings.usage_max_rows
        self.lane = None if redis_url is None else _lane(settings, redis_url)
        self.fleet = FleetLoad(metrics, self.lane, process=process, replica=inherited.replica)
        own = settings.cache_redis_url
        self._cache_lane = None if own is None or self.tokens is None else _cache_lane(settings, redis_url)
        self.cache_lane = self.lane if own is None else self._cache_lane
        self.sync: KeySync | None = None
        self.rollouts: Rollouts | None = None  # to be shown, once there are any
        if self.lane is not None and settings.registry_source == "folder":
            self.sync = KeySync(
                KeyStore(self.lane),
                registry.lay_over,
                poll_s=settings.keys_poll_s,
                cache=settings.keys_cache_file,
            )
            if self.tokens is not None:
                registry.lay_over(None)
            self.sync.remember()

    @property
    def keys_known(self) -> bool:
        """Whether keys may be judged: what was revoked is known, or nothing can have been."""
        return self.registry.overlay is not None

    def key_operations(self, audit: Audit) -> KeyOperations:
        """What may be done with keys: in Redis, or in the cluster where the registry is there."""
        from gateway.app.admin_keys import AdminKeys
        from gateway.app.cluster import ClusterWatch

        if isinstance(self.registry, ClusterWatch):
            from gateway.app.cluster_keys import ClusterKeys

            return ClusterKeys(self.registry, audit, may_write=self._write_keys, keys_max=self._keys_max)
        return AdminKeys(self.registry, self.sync, audit, keys_max=self._keys_max)

    async def start(self, tasks: BackgroundTasks) -> None:
        """Begin to read the keys, and to say what is under way here."""
        if self._cache_lane is not None:
            await self._cache_lane.start()
        if self.lane is not None:
            await self.lane.start()
            if self.sync is not None:
                tasks.keep_running("keys of the admin API", self.sync.run)
            tasks.keep_running("load of the fleet", self.fleet.run)

    async def close(self) -> None:
        """End the connection; the tasks are ended by who gave them."""
        if self.lane is not None:
            await self.fleet.leave()
            await self.lane.close()
        if self._cache_lane is not None:
            await self._cache_lane.close()


def _cache_lane(settings: Settings, redis_url: str | None) -> RedisLane | None:
    """A patient lane to where answers are kept, where that is a server of its own."""
    config = cache_config(settings, redis_url)
    if config is None:
        return None
    return _patient(config, "operators' cache")


def _lane(settings: Settings, redis_url: str) -> RedisLane:
    """A lane beside that of the requests: neither waits for the other, and this one has more patience."""
    return _patient(redis_config(settings, redis_url), "keys and operators")


def _patient(config: RedisConfig, purpose: str) -> RedisLane:
    from gateway.redis.lane import RedisLane  # a gateway without a Redis loads none of it

    return RedisLane(msgspec.structs.replace(config, deadline_s=max(config.deadline_s, DEADLINE_S), purpose=purpose))
