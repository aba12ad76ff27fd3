"""The composition root: every object that serves, built once from the settings and handed to who needs it.

Invariant: nothing below reaches for an object that it was not given, and what ``start`` began ``close`` ends.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.answering import Answering
from gateway.app.admin import Administration
from gateway.app.discovery import discover, new_discovery
from gateway.app.readiness import Readiness
from gateway.app.redis import redis_lane
from gateway.app.shadow import ShadowLine
from gateway.app.sharing import SharingParts
from gateway.app.signing import signers
from gateway.app.slow_metrics import SlowMetrics
from gateway.app.tasks import BackgroundTasks
from gateway.auth import FetchOptions, IssuerKeys, KeyOptions, KeySetFetcher, TokenAuthenticator, TokenOptions
from gateway.edge.build import EdgeOptions, Served, build
from gateway.edge.call import EdgeLimits
from gateway.edge.connections import ConnectionLimits
from gateway.limits import Limiter, LimitOptions
from gateway.limits.estimates import InputConstants
from gateway.limits.scripts import load_scripts
from gateway.limits.settlements import QueueBounds
from gateway.limits.wire import ScriptOptions
from gateway.meter.ledger import Ledger
from gateway.operations import Operations, UploadBounds
from gateway.pipeline import OptionalSteps, Pipeline
from gateway.rollout import RolloutOptions, Rollouts, ShadowOptions, Shadows
from gateway.scenarios import AnswerChecks
from gateway.settings import Settings
from gateway.sharing import Sharing
from gateway.telemetry import AccessLog, Metrics, RolloutCounts
from gateway.upstream import UpstreamClient, UpstreamLimits
from gateway.upstream.call import Caller
from gateway.upstream.counting import InputCounter
from gateway.upstream.embeddings import Embedder
from gateway.upstream.operations import OperationCaller, UploadCaller

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from gateway.app.launch import Inherited
    from gateway.meter.export import UsageWatch
    from gateway.redis.lane import RedisLane

FLUSH_S: Final = 0.5
"""How often a worker publishes its numbers to the others."""

DAY_S: Final = 86_400

LONGEST_CALL_MS: Final = 86_400_000
"""How long Redis remembers what a running call has reserved."""

LATE_MS: Final = 300_000
"""How much longer than the queue of ended calls Redis remembers one that has ended."""


class Container:
    """Everything that serves in one process; made inside its event loop."""

    def __init__(self, inherited: Inherited) -> None:
        settings = self.settings = inherited.settings
        self.registry = inherited.registry
        self.metrics = Metrics(
            version=__version__, max_tenants=settings.metrics_max_tenants, multiprocess_dir=inherited.metrics_folder
        )
        inherited.log_loss.metrics = self.metrics
        self.access_log = AccessLog(inherited.writer, environment=settings.environment)
        limits = upstream_limits(settings)
        self.discovery = new_discovery(settings)
        self.upstream = UpstreamClient(limits, self.discovery)
        self.signers = signers(settings)
        caller = Caller(self.upstream, limits, self.metrics, self.signers)
        self.lane = redis_lane(settings, inherited.redis_url, self.metrics)
        scripts = None if self.lane is None else load_scripts()
        self.limiter = Limiter(self.lane, scripts, limit_options(settings), self.metrics)
        self.issuer_keys = IssuerKeys(
            KeySetFetcher(fetch_options(settings)),
            key_options(settings),
            fetched=self.metrics.states.jwks_fetched,
        )
        tokens = TokenAuthenticator(self.issuer_keys, token_options(settings))
        answers = AnswerChecks(settings.answer_check_max_bytes, self.metrics)
        self.admin = Administration(inherited, self.metrics, self.limiter.shared.replicas.id)
        line = ShadowLine(caller, settings.max_attempts)
        counts = RolloutCounts(self.metrics)
        shadows = Shadows(line, shadow_options(settings), counts, self.access_log)
        options = RolloutOptions(sync_s=settings.rollout_sync_s, window_s=settings.rollout_window_s)
        self.rollouts = Rollouts(self.registry, self.admin.lane, options, counts, shadows)
        self.admin.rollouts = self.rollouts
        answering = Answering(caller, answers)
        self.sharing = SharingParts(settings, inherited.redis_url, self.metrics)
        sharing = Sharing(
            self.sharing.cache, answering, Embedder(self.upstream, self.metrics), self.metrics, limits.max_event_bytes
        )
        steps = OptionalSteps(self.rollouts, sharing, InputCounter(self.upstream, self.metrics))
        self.pipeline = Pipeline(self.registry, self.limiter, answering, settings.max_attempts, tokens, steps)
        ledger = None if self.admin.lane is None else Ledger(self.admin.lane, settings.usage_max_rows)
        served = Served(self.pipeline, self._operations(limits, caller, answers))
        self.app: ASGIApp = build(
            served, self.metrics, self.access_log, edge_options(settings), ledger, self.sharing.conversations
        )
        self.readiness = Readiness(
            lambda: self.registry.snapshot.generation > 0,
            lambda: self.admin.keys_known,
            lambda: [*self.registry.waiting_for, *(self.discovery.waiting_for if self.discovery is not None else ())],
        )
        self._tasks = BackgroundTasks()

    def _operations(self, limits: UpstreamLimits, caller: Caller, answers: AnswerChecks) -> Operations:
        """What else than chats is asked of models: over the same places at backends."""
        calls = OperationCaller(self.upstream, limits, self.metrics, caller.backends)
        answering = Answering(calls, answers)
        sharing = Sharing(
            self.sharing.cache, answering, Embedder(self.upstream, self.metrics), self.metrics, limits.max_event_bytes
        )
        line = self.pipeline.answered_by(answering, sharing)
        uploads = UploadCaller(self.upstream, limits, self.metrics, caller.backends)
        bounds = UploadBounds(held_max=self.settings.upload_held_bytes, parts_max=self.settings.max_top_level_fields)
        return Operations(line, uploads, answers, bounds)

    async def start(self) -> None:
        """Begin what runs in the background."""
        if self.lane is not None:
            await self.lane.start()
            self._tasks.keep_running("shared limits", self.limiter.shared.run)
        await self.sharing.start(self.registry.snapshot)
        self.registry.serves(self.metrics)
        self._tasks.keep_running("registry watch", self.registry.run)
        if self.discovery is not None:
            work = partial(discover, self.discovery, self.settings, self.registry, self.metrics)
            self._tasks.keep_running("endpoint discovery", work)
        await self.admin.start(self._tasks)
        self._tasks.keep_running("rollouts", self.rollouts.run)
        if self.admin.lane is not None:
            self._tasks.keep_running("usage watch", self._usage_watch(self.admin.lane).run)
        if self.metrics.multiprocess_dir is not None:
            self._tasks.keep_running("publish metrics", self._publish_metrics)
        self._tasks.keep_running("token issuers", self._know_issuers)
        self._tasks.keep_running("slow metrics", SlowMetrics(self.registry, self.metrics).run)

    @property
    def idle(self) -> bool:
        """Nothing is being done for other processes."""
        return self.sharing.cache.is_idle

    def drain(self) -> None:
        """Take no more traffic, and do nothing more that no caller waits for."""
        self.readiness.draining = True
        self.rollouts.shadows.drain()

    async def close(self) -> None:
        """End it, close every connection to a backend and write what is left of metrics and log."""
        await self._tasks.close()
        await self.rollouts.shadows.close()
        await self.sharing.close()
        if self.lane is not None:
            await self.limiter.shared.close()
            await self.lane.close()
        await self.admin.close()
        await self.issuer_keys.close()
        await self.signers.close()
        self.upstream.close()
        self.metrics.close()
        await asyncio.to_thread(self.access_log.flush)

    def _usage_watch(self, lane: RedisLane) -> UsageWatch:
        from gateway.meter.export import UsageWatch  # a gateway without a Redis loads none of it

        settings = self.settings
        return UsageWatch(
            lane,
            lambda: self.registry.snapshot.tenants,
            self.metrics,
            period_s=settings.usage_watch_s,
            retention_s=settings.usage_retention_days * DAY_S,
        )

    async def _know_issuers(self) -> None:
        await self.issuer_keys.run(lambda: self.registry.snapshot.issuers)

    async def _publish_metrics(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.metrics.flush()


def upstream_limits(settings: Settings) -> UpstreamLimits:
    """The bounds of the upstream client."""
    return UpstreamLimits(
        max_connections=settings.upstream_max_connections,
        max_idle_connections=settings.upstream_max_idle_connections,
        idle_s=settings.upstream_idle_s,
        connection_max_age_s=settings.upstream_connection_max_age_s,
        dns_ttl_s=settings.upstream_dns_ttl_s,
        max_header_bytes=settings.upstream_max_header_bytes,
        max_header_count=settings.upstream_max_header_count,
        max_body_bytes=settings.upstream_max_body_bytes,
        max_error_body_bytes=settings.upstream_max_error_body_bytes,
        max_event_bytes=settings.upstream_max_event_bytes,
        ca_file=settings.upstream_ca_file,
        max_batch_items=settings.max_batch_items,
        queue_probe_s=settings.backend_queue_probe_s,
        workers=settings.workers,
    )


def fetch_options(settings: Settings) -> FetchOptions:
    """The bounds of fetching a token issuer's keys."""
    return FetchOptions(
        timeout_s=settings.oidc_timeout_s,
        max_document_bytes=settings.oidc_max_document_bytes,
        ca_file=settings.oidc_ca_file,
    )


def key_options(settings: Settings) -> KeyOptions:
    """How long a token issuer's keys are kept."""
    return KeyOptions(ttl_s=settings.oidc_keys_ttl_s, refresh_interval_s=settings.oidc_refresh_interval_s)


def token_options(settings: Settings) -> TokenOptions:
    """The bounds of tokens."""
    return TokenOptions(
        max_token_bytes=settings.oidc_max_token_bytes,
        leeway_s=settings.oidc_leeway_s,
        max_verified=settings.oidc_max_verified_tokens,
    )


def limit_options(settings: Settings) -> LimitOptions:
    """How limits behave."""
    queue_ms = int(settings.limit_queue_s * 1000)
    return LimitOptions(
        inputs=InputConstants(per_message=settings.limit_tokens_per_message, per_image=settings.limit_tokens_per_image),
        scripts=ScriptOptions(
            open_ms=LONGEST_CALL_MS + queue_ms,
            ended_ms=queue_ms + LATE_MS,
            slot_ms=int(settings.limit_slot_s * 1000),
            first_output_tokens=settings.limit_first_output_tokens,
            retention_s=settings.usage_retention_days * 86_400,
            events_max=settings.usage_events_max,
        ),
        refusal_memory_s=settings.limit_refusal_memory_s,
        queue=QueueBounds(entries_max=settings.limit_queue_entries, age_max_s=settings.limit_queue_s),
        workers=settings.workers,
    )


def shadow_options(settings: Settings) -> ShadowOptions:
    """The bounds of copies of requests."""
    return ShadowOptions(
        concurrent_max=settings.shadow_max_concurrent,
        waiting_max=settings.shadow_queue if settings.shadow_max_concurrent else 0,
        bytes_max=settings.shadow_queue_bytes,
    )


def edge_options(settings: Settings) -> EdgeOptions:
    """How the data port behaves."""
    return EdgeOptions(
        limits=EdgeLimits(
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.client_body_timeout_s,
            max_top_level_fields=settings.max_top_level_fields,
            max_upload_bytes=settings.max_upload_bytes,
            routing_headers=frozenset(settings.routing_headers),
        ),
        trusted_proxies=settings.trusted_proxies,
        cors_allow_origins=settings.cors_allow_origins,
        default_scenario=settings.default_scenario,
        expose_backend=settings.expose_backend,
        docs=settings.docs,
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    """The bounds of client connections on the data port."""
    return ConnectionLimits(
        max_header_bytes=settings.max_header_bytes,
        max_header_count=settings.max_header_count,
        max_connections=settings.max_connections,
        header_timeout_s=settings.client_header_timeout_s,
        keep_alive_s=settings.client_keep_alive_s,
        write_timeout_s=settings.client_write_timeout_s,
        max_age_s=settings.client_connection_max_age_s,
    )
