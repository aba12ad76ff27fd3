"""The registry as the process uses it: loaded before anything listens, then watched, and what it has to say told.

Every problem and warning is a log line, once: a reload repeats neither. What the admin API made is laid over every load
of the files, and the result is swapped in one assignment, whichever of the two has changed.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.errors import RegistryInvalid
from gateway.registry.folder import FolderRegistry
from gateway.registry.load import EMPTY_SNAPSHOT, NOTHING_LOADED
from gateway.registry.overlay import NO_OVERLAY, UNKNOWN_KEYS, Overlay, Overlayer
from gateway.settings import SecretReader, Settings
from gateway.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model import Backend, Snapshot
    from gateway.registry.load import LoadResult, LoadState
    from gateway.telemetry import Metrics

_log = logging.getLogger("gateway.registry")


class RegistryWatch(ABC):
    """A registry and what is told of its loads. ``metrics`` may be given later, after a fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told: frozenset[str] = frozenset()
        self.metrics: Metrics | None = None
        self.snapshot: Snapshot = EMPTY_SNAPSHOT
        self.state: LoadState = NOTHING_LOADED
        self.overlay: Overlay | None = NO_OVERLAY
        self._overlayer = Overlayer()

    @property
    def waiting_for(self) -> list[str]:
        """What was not read yet, with the reason where one is known."""
        return []

    @abstractmethod
    def load(self) -> None:
        """Load for the first time, or check that a worker can. Raises RegistryInvalid or SettingsInvalid."""

    @abstractmethod
    def refresh(self) -> None:
        """Load anew in a process that was forked long after ``load``."""

    @abstractmethod
    async def run(self) -> None:
        """Watch until cancelled."""

    def lay_over(self, overlay: Overlay | None) -> None:
        """Serve the files with this overlay from now on; with None, not known yet, no key is judged."""
        self.overlay = overlay
        self._serve()

    def _adopt(self, result: LoadResult) -> None:
        self.state = result.state
        self._serve()
        self._tell(result)

    def _serve(self) -> None:
        files = self.state.snapshot
        if self.overlay is None:
            self.snapshot = replace(files, keys=UNKNOWN_KEYS)
        else:
            self.snapshot = self._overlayer.apply(files, self.overlay)

    def serves(self, metrics: Metrics) -> None:
        """From now on this process serves the registry and counts in ``metrics``."""
        self.metrics = metrics
        if self.snapshot.generation > 0:
            metrics.registry_loaded(self.snapshot)
            metrics.registry_seen()

    def _reloaded(self, result: LoadResult) -> None:
        self._adopt(result)
        if self.metrics is not None:
            self.metrics.registry_loaded(result.snapshot, len(result.problems))

    def _tell(self, result: LoadResult) -> None:
        problems = [f"refused: {problem}" for problem in result.problems]
        texts = [*problems, *result.warnings, *setting_warnings(self._settings, result.snapshot)]
        for text in texts:
            if text not in self._told:
                _log.warning(text)
        self._told = frozenset(texts)
        snapshot = result.snapshot
        _log.info(
            "registry generation %d: %d tenants, %d scenarios, %d backends, %d problems",
            snapshot.generation,
            len(snapshot.tenants),
            len(snapshot.scenarios),
            len(snapshot.backends),
            len(problems),
        )


class FolderWatch(RegistryWatch):
    """The registry of a folder."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.folder = self._new_folder()

    def _new_folder(self) -> FolderRegistry:
        settings = self._settings
        return FolderRegistry(
            settings.registry,
            SecretReader(settings),
            poll_s=settings.registry_poll_s,
            routing_headers=frozenset(settings.routing_headers),
            on_reload=self._reloaded,
            on_seen=self._seen,
        )

    def load(self) -> None:
        """Load for the first time. Raises RegistryInvalid with every problem."""
        self._adopt(self.folder.load())

    def refresh(self) -> None:
        """Load anew in a process that was forked long after ``load``; keeps what it has where the folder is bad now."""
        fresh = self._new_folder()
        try:
            result = fresh.load()
        except RegistryInvalid:
            return  # the watch finds and tells it, and serves the last good version of each object
        self.folder = fresh
        self._adopt(result)

    async def run(self) -> None:
        """Watch until cancelled."""
        await self.folder.run()

    def _seen(self) -> None:
        if self.metrics is not None:
            self.metrics.registry_seen()


def setting_warnings(settings: Settings, snapshot: Snapshot) -> Iterator[str]:
    """One line for each setting that does not fit what the registry holds."""
    default = settings.default_scenario
    if default is not None and not any(default in (each.name, *each.aliases) for each in snapshot.scenarios.values()):
        yield f"LLM_GATEWAY_DEFAULT_SCENARIO: the registry has no scenario and no alias {default!r}"
    limited = any(each.limits for each in snapshot.tenants.values())
    if settings.redis_url is None and (limited or any(each.principal.key.limits for each in snapshot.keys.values())):
        yield (
            "the registry has limits and there is no LLM_GATEWAY_REDIS_URL: each limit follows its onRedisLoss, and"
            " every process counts alone"
        )
    judged = sorted(name for name, each in snapshot.scenarios.items() if each.canary is not None and each.canary.abort)
    if settings.redis_url is None and judged:
        yield (
            f"the canaries of scenarios {', '.join(judged)} have bounds and there is no LLM_GATEWAY_REDIS_URL: every"
            " process judges what it alone sees, and forgets it when it ends"
        )
    keeping = sorted(name for name, each in snapshot.scenarios.items() if each.cache is not None)
    if settings.redis_url is None and settings.cache_redis_url is None and keeping:
        yield (
            f"scenarios {', '.join(keeping)} have a cache and there is neither LLM_GATEWAY_REDIS_URL nor"
            " LLM_GATEWAY_CACHE_REDIS_URL: no answer is kept, and identical calls at the same time are shared within a"
            " process alone"
        )
    longer = sorted(name for name, each in snapshot.backends.items() if _longest_s(each) > settings.drain_s)
    if longer:
        yield (
            f"calls to backends {', '.join(longer)} may take longer than a drain, which cuts them after"
            f" {format_duration(settings.drain_s)}: lower timeouts.total or queue.wait, or raise LLM_GATEWAY_DRAIN_S"
        )
    if settings.discovery_namespaces and settings.registry_source == "folder":
        yield "LLM_GATEWAY_DISCOVERY_NAMESPACES has no effect: no backend of a folder may name a service"
    outside = sorted(
        f"{name} ({each.origin.service.namespace})"
        for name, each in snapshot.backends.items()
        if each.origin is not None
        and each.origin.service is not None
        and each.origin.service.namespace not in settings.discovery_namespaces
    )
    if outside:
        yield (
            f"backends {', '.join(outside)} have no endpoint: the namespaces of their services are not among"
            " LLM_GATEWAY_DISCOVERY_NAMESPACES"
        )


def _longest_s(backend: Backend) -> float:
    """How long a call may take at most."""
    return backend.timeouts.total_s + (0.0 if backend.queue is None else backend.queue.wait_s)


def new_registry(settings: Settings) -> RegistryWatch:
    """Return the registry of the source that the settings name."""
    if settings.registry_source == "kubernetes":
        from gateway.app.cluster import ClusterWatch  # of this mode only

        return ClusterWatch(settings)
    return FolderWatch(settings)
