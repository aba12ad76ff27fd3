"""What is measured: every metric that the gateway fills, with its labels, its buckets and its meaning.

The bucket boundaries of the ``gen_ai_*`` metrics are those of the OpenTelemetry GenAI conventions,
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ . Label values are names of the registry, words of
fixed sets, or tenants up to a bound; none is what a caller wrote. Nothing is counted here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

NANO_USD_PER_USD = 1_000_000_000

TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
"""1, 4, 16, ... 67108864 tokens: ``gen_ai.client.token.usage``."""

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds: ``gen_ai.server.request.duration``."""

FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Seconds: ``gen_ai.server.time_to_first_token``."""

OUTPUT_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""Seconds: ``gen_ai.server.time_per_output_token``."""

SLOW_FIRST_TOKEN_BUCKETS = (*FIRST_TOKEN_BUCKETS, 20.0, 40.0, 60.0)
"""Seconds: as the conventions', and on to the default bound of a first byte."""

OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds of the gateway's own work and queueing."""

QUEUE_WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0)
"""Seconds: from a place that is free at once to a model that is loaded from a slow disk."""

SIMILARITY_BUCKETS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0)
"""Cosine similarity, finer where thresholds are."""

MAX_CHILDREN = 20_000
"""Label sets per counter or gauge; what comes after is counted under ``other`` in every label."""

MAX_HISTOGRAM_CHILDREN = 2_000
"""Label sets per histogram, which has some 15 series for each."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. ``name`` is as exposed (a counter's ends in ``_total``); a counter shows its value / ``divisor``."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    divisor: int = 1
    merge: Literal["sum", "max", "min"] = "sum"
    """What several workers' values of a gauge make."""
    zeros: tuple[tuple[str, ...], ...] = ()
    """Label sets that are shown as 0 from the start: a counter that begins with 1 has no increase for Prometheus."""

    @property
    def family(self) -> str:
        """The name of the metric family: without ``_total``, as OpenMetrics has it."""
        return self.name.removesuffix("_total")

    @property
    def max_children(self) -> int:
        """How many label sets there may be."""
        return MAX_HISTOGRAM_CHILDREN if self.kind == "histogram" else MAX_CHILDREN


_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")

TOKEN_USAGE = Spec(
    kind="histogram",
    name="gen_ai_client_token_usage",
    help="Tokens of a call by type; what of the input was read from a cache or written to one, and of the output was"
    " reasoning, also by itself where there was any.",
    labels=(*_GEN_AI, "gen_ai_token_type"),
    bounds=TOKEN_BUCKETS,
)
REQUEST_DURATION = Spec(
    kind="histogram",
    name="gen_ai_server_request_duration",
    help="Seconds from a request to its last byte, for requests that reached a backend.",
    labels=(*_GEN_AI, "error_type"),
    bounds=DURATION_BUCKETS,
)
TIME_TO_FIRST_TOKEN = Spec(
    kind="histogram",
    name="gen_ai_server_time_to_first_token",
    help="Seconds from a request to its first token, for successful streams.",
    labels=_GEN_AI,
    bounds=FIRST_TOKEN_BUCKETS,
)
TIME_PER_OUTPUT_TOKEN = Spec(
    kind="histogram",
    name="gen_ai_server_time_per_output_token",
    help="Seconds per output token after the first, for successful streams.",
    labels=_GEN_AI,
    bounds=OUTPUT_TOKEN_BUCKETS,
)
REQUESTS = Spec(
    kind="counter",
    name="llm_gateway_requests_total",
    help="Requests finished, by HTTP status; 499 is a client that left.",
    labels=("tenant", "scenario", "variant", "backend", "code"),
)
INFLIGHT = Spec(kind="gauge", name="llm_gateway_inflight_requests", help="Requests begun and not yet finished.")
OVERHEAD = Spec(
    kind="histogram",
    name="llm_gateway_overhead_seconds",
    help="Seconds of a request that were waiting neither for a backend or a place at one nor for the client.",
    bounds=OVERHEAD_BUCKETS,
)
TOKENS = Spec(
    kind="counter",
    name="llm_gateway_tokens_total",
    help="Tokens charged; cached_input and cache_creation_input are contained in input, reasoning_output in output.",
    labels=("tenant", "scenario", "type"),
)
DROPPED_FIELDS = Spec(
    kind="counter",
    name="llm_gateway_dropped_fields_total",
    help="Fields left out of requests because a backend cannot do what they ask for; other: of no known name.",
    labels=("scenario", "field"),
)
COST = Spec(
    kind="counter",
    name="llm_gateway_cost_usd_total",
    help="Cost charged, in USD.",
    labels=("tenant", "scenario"),
    divisor=NANO_USD_PER_USD,
)
ATTEMPTS = Spec(
    kind="counter",
    name="llm_gateway_upstream_attempts_total",
    help="Attempts at backends, by how they ended.",
    labels=("backend", "outcome"),
)
BACKEND_INFLIGHT = Spec(
    kind="gauge",
    name="llm_gateway_backend_inflight_requests",
    help="Attempts under way at a backend.",
    labels=("backend",),
)
BACKEND_QUEUED = Spec(
    kind="gauge",
    name="llm_gateway_backend_queued_requests",
    help="Requests that wait for a backend to have room or to be ready.",
    labels=("backend",),
)
QUEUE_WAIT = Spec(
    kind="histogram",
    name="llm_gateway_backend_queue_wait_seconds",
    help="Seconds that requests waited for a backend to have room or to be ready, however the wait ended.",
    labels=("backend",),
    bounds=QUEUE_WAIT_BUCKETS,
)
STREAM_ENDS = Spec(
    kind="counter",
    name="llm_gateway_stream_ends_total",
    help="Streams ended after their head was sent, by reason.",
    labels=("scenario", "backend", "reason"),
)
SCENARIO_FIRST_TOKEN = Spec(
    kind="histogram",
    name="llm_gateway_time_to_first_token_seconds",
    help="Seconds from a request to its first token, for every stream that had one.",
    labels=("scenario",),
    bounds=SLOW_FIRST_TOKEN_BUCKETS,
)
CONNECTION_REFUSALS = Spec(
    kind="counter",
    name="llm_gateway_connection_refusals_total",
    help="Refused by the server itself, before there was a request to log: wrong or late heads, connections too many.",
    labels=("code",),
    zeros=(("overloaded",),),
)
RELOAD_FAILURES = Spec(
    kind="counter",
    name="llm_gateway_registry_reload_failures_total",
    help="Loads of the registry in which something was refused, or that failed as a whole.",
)
ANSWER_CHECKS = Spec(
    kind="counter",
    name="llm_gateway_answer_checks_total",
    help="Answers of scenarios that have a schema for them, by whether they conform and whether they were asked again.",
    labels=("scenario", "result"),
)
LIMIT_REJECTIONS = Spec(
    kind="counter",
    name="llm_gateway_limit_rejections_total",
    help="Calls that a limit refused.",
    labels=("tenant", "limit"),
)
SHADOW_REJECTIONS = Spec(
    kind="counter",
    name="llm_gateway_limit_shadow_rejections_total",
    help="Calls that a limit in shadow mode would have refused.",
    labels=("tenant", "limit"),
)
LIMIT_UTILIZATION = Spec(
    kind="gauge",
    name="llm_gateway_limit_utilization_ratio",
    help="How much of a limit was taken when it was last asked: 0 is none, 1 all of it.",
    labels=("tenant", "limit", "kind"),
    divisor=10_000,
    merge="max",
)
DEGRADED = Spec(
    kind="counter",
    name="llm_gateway_degraded_total",
    help="Calls that were decided without a dependency, by what was done instead.",
    labels=("dependency", "policy"),
    zeros=(("limits", "local"), ("limits", "open"), ("limits", "closed")),
)
LEASES_LOST = Spec(
    kind="counter",
    name="llm_gateway_leases_lost_total",
    help="Leases whose end never reached the limits: what they had reserved stays charged.",
)
USAGE_EXPORT_LAG = Spec(
    kind="gauge",
    name="llm_gateway_usage_export_lag_events",
    help="Usage events of all tenants that the slowest group of readers has yet to get or to acknowledge.",
)
USAGE_LOST = Spec(
    kind="counter",
    name="llm_gateway_usage_lost_total",
    help="Usage events that were trimmed from their stream before a group of readers had acknowledged them.",
)
REDIS_SECONDS = Spec(
    kind="histogram",
    name="llm_gateway_redis_seconds",
    help="Seconds from writing commands to Redis to its answer, once for all commands of one read.",
    bounds=OVERHEAD_BUCKETS,
)
REDIS_FAILURES = Spec(
    kind="counter",
    name="llm_gateway_redis_failures_total",
    help="Commands to Redis that were not executed (unavailable) or perhaps were (unanswered).",
    labels=("reason",),
    zeros=(("unavailable",), ("unanswered",)),
)
REDIS_UNAVAILABLE = Spec(
    kind="gauge",
    name="llm_gateway_redis_unavailable_servers",
    help="Redis servers that are not used, because they did not answer.",
    merge="max",
)
REDIS_EVICTING = Spec(
    kind="gauge",
    name="llm_gateway_redis_evicting_servers",
    help="Redis servers that may drop limits for want of memory: maxmemory is set and its policy is not noeviction.",
    merge="max",
)
REDIS_NOTICES = Spec(
    kind="counter",
    name="llm_gateway_redis_notices_total",
    help="What a Redis server was seen to be or do that endangers limits.",
    labels=("notice",),
    zeros=(("full",), ("eviction_policy",), ("promoted",), ("restarted",), ("replica",), ("credentials",)),
)
FALLBACKS = Spec(
    kind="counter",
    name="llm_gateway_fallback_requests_total",
    help="Requests that asked a further backend, or one again, because an attempt had failed.",
    labels=("scenario",),
)
BACKEND_HEALTHY = Spec(
    kind="gauge",
    name="llm_gateway_backend_healthy",
    help="0 while the last 5 attempts of a worker at a backend all failed by its fault, the last within 5 minutes.",
    labels=("backend",),
    merge="min",
)
BACKEND_ENDPOINTS = Spec(
    kind="gauge",
    name="llm_gateway_backend_endpoints",
    help="Ready pods of a backend that is a Service of the cluster, as the gateway knows them.",
    labels=("backend",),
    merge="max",
)
KEY_EXPIRY = Spec(
    kind="gauge",
    name="llm_gateway_key_expiry_timestamp_seconds",
    help="When the first of a tenant's keys ends for good, or ended within a day, in Unix seconds; 0: none will.",
    labels=("tenant",),
    merge="max",
)
JWKS_FETCHES = Spec(
    kind="counter",
    name="llm_gateway_jwks_fetches_total",
    help="Fetches of the keys of token issuers, by how they ended.",
    labels=("issuer", "result"),
)
REGISTRY_SEEN = Spec(
    kind="gauge",
    name="llm_gateway_registry_seen_timestamp_seconds",
    help="When the source of the registry was last read whole, or told of changes, in Unix seconds.",
    merge="min",
)
REGISTRY_SCHEMA = Spec(
    kind="gauge",
    name="llm_gateway_registry_schema_missing_fields",
    help="Fields of this version that the custom resource definitions in the cluster do not know.",
    merge="max",
)
WORKERS = Spec(kind="gauge", name="llm_gateway_workers", help="Worker processes that serve a registry.")
CACHE_REQUESTS = Spec(
    kind="counter",
    name="llm_gateway_cache_requests_total",
    help="Calls of scenarios with a cache, by what it did; not_kept counts answers that could not be kept.",
    labels=("scenario", "result"),
)
CACHE_SIMILARITY = Spec(
    kind="histogram",
    name="llm_gateway_cache_similarity",
    help="Cosine similarity of the question asked and the one whose kept answer was given.",
    labels=("scenario",),
    bounds=SIMILARITY_BUCKETS,
)
CACHE_REDIS_FAILURES = Spec(
    kind="counter",
    name="llm_gateway_cache_redis_failures_total",
    help="Commands to the Redis of the cache that were not executed (unavailable) or perhaps were (unanswered).",
    labels=("reason",),
    zeros=(("unavailable",), ("unanswered",)),
)
LOG_LINES_DROPPED = Spec(
    kind="counter",
    name="llm_gateway_log_lines_dropped_total",
    help="Log lines given up because standard output took none for too long.",
)

CANARY_WITHDRAWN = Spec(
    kind="gauge",
    name="llm_gateway_canary_withdrawn",
    help="1 while a scenario's canary is withdrawn because it broke its bounds, 0 while it runs.",
    labels=("scenario",),
    merge="max",
)
SHADOW_CALLS = Spec(
    kind="counter",
    name="llm_gateway_shadow_calls_total",
    help="Copies of requests that a shadow was sent, by the status of what became of them.",
    labels=("scenario", "backend", "code"),
)
SHADOW_DROPPED = Spec(
    kind="counter",
    name="llm_gateway_shadow_dropped_total",
    help="Copies of requests that were not sent, by reason.",
    labels=("scenario", "reason"),
)
SHADOW_SECONDS = Spec(
    kind="histogram",
    name="llm_gateway_shadow_seconds",
    help="Seconds from the beginning of a shadow's call to its last byte.",
    labels=("scenario",),
    bounds=DURATION_BUCKETS,
)
SHADOW_FIRST_TOKEN = Spec(
    kind="histogram",
    name="llm_gateway_shadow_time_to_first_token_seconds",
    help="Seconds from the beginning of a shadow's call to its first token, for every stream that had one.",
    labels=("scenario",),
    bounds=SLOW_FIRST_TOKEN_BUCKETS,
)
SHADOW_TOKENS = Spec(
    kind="counter",
    name="llm_gateway_shadow_tokens_total",
    help="Tokens that backends reported for a shadow's calls; nobody is charged for them.",
    labels=("scenario", "type"),
)
SHADOW_COST = Spec(
    kind="counter",
    name="llm_gateway_shadow_cost_usd_total",
    help="What a shadow's calls cost by the prices of their backends, in USD; no tenant is charged.",
    labels=("scenario",),
    divisor=NANO_USD_PER_USD,
)

ACCUMULATED = (
    ANSWER_CHECKS,
    TOKEN_USAGE, REQUEST_DURATION, TIME_TO_FIRST_TOKEN, TIME_PER_OUTPUT_TOKEN, REQUESTS, FALLBACKS, INFLIGHT, OVERHEAD,
    TOKENS, DROPPED_FIELDS,
    COST, ATTEMPTS, BACKEND_INFLIGHT, BACKEND_QUEUED, QUEUE_WAIT, STREAM_ENDS, SCENARIO_FIRST_TOKEN,
    CONNECTION_REFUSALS, RELOAD_FAILURES, LOG_LINES_DROPPED, LIMIT_REJECTIONS, SHADOW_REJECTIONS, LIMIT_UTILIZATION,
    DEGRADED, LEASES_LOST, USAGE_EXPORT_LAG, USAGE_LOST, REDIS_SECONDS, REDIS_FAILURES, REDIS_UNAVAILABLE,
    REDIS_NOTICES, REDIS_EVICTING, BACKEND_HEALTHY, BACKEND_ENDPOINTS, KEY_EXPIRY, JWKS_FETCHES, REGISTRY_SEEN,
    REGISTRY_SCHEMA, WORKERS,
    CANARY_WITHDRAWN, SHADOW_CALLS, SHADOW_DROPPED, SHADOW_SECONDS, SHADOW_FIRST_TOKEN, SHADOW_TOKENS, SHADOW_COST,
    CACHE_REQUESTS, CACHE_SIMILARITY, CACHE_REDIS_FAILURES,
)  # fmt: skip
"""Every metric that accumulates in memory; those of the registry and of the build are stated at each scrape."""
