"""What the gateway itself lives on: its registry, Redis, token issuers and the export of usage."""

from __future__ import annotations

from tools.dashboards.model import JOB, NAMESPACE, Dashboard, Panel, Query, Row, quantile

_REGISTRY = Row(
    title="Do all replicas serve the same registry, and is it the newest?",
    panels=(
        Panel(
            title="Versions of the registry",
            description="How many different contents are served. More than 1 for longer than a moment: a replica does "
            "not get changes.",
            kind="stat",
            width=4,
            steps=((2, "red"),),
            queries=(Query("count(group by (hash) (llm_gateway_registry_info{FLEET}))", ""),),
        ),
        Panel(
            title="Content by replica",
            description="The hash of what each replica serves, and how many generations it has seen.",
            kind="table",
            width=12,
            queries=(Query("max by (pod, instance, hash) (llm_gateway_registry_info{FLEET})", ""),),
            hidden=("Value",),
        ),
        Panel(
            title="Objects that are not taken",
            description="refused: nothing of it serves. stale: its last good version does. The log names file or "
            "resource, field and reason; so does its status in the cluster.",
            width=8,
            queries=(
                Query(
                    'max by (kind, state) (llm_gateway_registry_objects{FLEET,state!="live"})',
                    "{{kind}} {{state}}",
                ),
            ),
        ),
        Panel(
            title="Last seen",
            description="How long ago the folder was read whole, or the API server told of changes. It should never "
            "be more than a minute or two; what was loaded goes on serving.",
            unit="s",
            steps=((300, "red"),),
            queries=(
                Query(
                    "time() - max by (pod, instance) (llm_gateway_registry_seen_timestamp_seconds{FLEET})",
                    "{{pod}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Last changed",
            description="How long ago the registry in use was loaded. Compare with the last change that was merged.",
            unit="s",
            queries=(
                Query("max by (pod, instance) (llm_gateway_registry_age_seconds{FLEET})", "{{pod}} {{instance}}"),
            ),
        ),
        Panel(
            title="Loads with faults",
            description="Loads in which something was refused, or that failed as a whole; each worker counts its own.",
            queries=(
                Query(
                    "sum(increase(llm_gateway_registry_reload_failures_total{FLEET}[$__rate_interval]))",
                    "loads with faults",
                ),
            ),
        ),
        Panel(
            title="Objects that serve",
            description="By kind. A fall is a deletion: was it meant?",
            queries=(Query('max by (kind) (llm_gateway_registry_objects{FLEET,state="live"})', "{{kind}}"),),
        ),
        Panel(
            title="Fields that the cluster's definitions lack",
            description="Above 0 the chart llm-gateway-crds is older than the gateway. 0 for a registry of files.",
            queries=(Query("max(llm_gateway_registry_schema_missing_fields{FLEET})", "fields"),),
        ),
        Panel(
            title="Versions of the gateway",
            description="How many replicas run each: two versions during an upgrade, else one.",
            kind="table",
            queries=(Query("count by (version, python_version) (llm_gateway_build_info{FLEET})", ""),),
        ),
        Panel(
            title="Fetches of token issuers' keys",
            description="Failed ones: tokens of that issuer go on with the keys known so far; replicas that start now "
            "refuse them.",
            queries=(
                Query(
                    "sum by (issuer, result) (increase(llm_gateway_jwks_fetches_total{FLEET}[$__rate_interval]))",
                    "{{issuer}} {{result}}",
                ),
            ),
        ),
    ),
)

_REDIS = Row(
    title="Are limits shared, and is usage counted?",
    panels=(
        Panel(
            title="Redis servers not used",
            description="The worst replica's count. Above 0 every limit follows its onRedisLoss; requests keep their "
            "latency.",
            kind="stat",
            width=4,
            steps=((1, "red"),),
            queries=(Query("max(llm_gateway_redis_unavailable_servers{FLEET})", ""),),
        ),
        Panel(
            title="Redis servers that may evict",
            description="Their maxmemory-policy is not noeviction: limits and revoked keys may be dropped.",
            kind="stat",
            width=4,
            steps=((1, "red"),),
            queries=(Query("max(llm_gateway_redis_evicting_servers{FLEET})", ""),),
        ),
        Panel(
            title="Time of Redis",
            description="From writing commands to the answer. Above LLM_GATEWAY_REDIS_DEADLINE_S it is not used.",
            unit="s",
            queries=tuple(Query(quantile(q, "llm_gateway_redis_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99, 0.999)),
        ),
        Panel(
            title="Commands that failed",
            description="unavailable: certainly not executed. unanswered: perhaps executed; a lease is voided then.",
            unit="ops",
            queries=(
                Query(
                    "sum by (reason) (rate(llm_gateway_redis_failures_total{FLEET}[$__rate_interval]))", "{{reason}}"
                ),
            ),
        ),
        Panel(
            title="Calls decided without a dependency",
            description="By the policy that was followed instead: open and local let calls pass, closed refuses them.",
            unit="reqps",
            stack=True,
            queries=(
                Query(
                    "sum by (dependency, policy) (rate(llm_gateway_degraded_total{FLEET}[$__rate_interval]))",
                    "{{dependency}} {{policy}}",
                ),
            ),
        ),
        Panel(
            title="What was noticed of Redis",
            description="promoted, restarted: the last writes may be lost and are restored as far as replicas saw "
            "them. full: no writes. credentials: ours are not taken.",
            queries=(
                Query(
                    "sum by (notice) (increase(llm_gateway_redis_notices_total{FLEET}[$__rate_interval]))",
                    "{{notice}}",
                ),
            ),
        ),
        Panel(
            title="Leases lost",
            description="Calls whose end never reached the limits: what they reserved stays charged until the window "
            "turns.",
            queries=(Query("sum(increase(llm_gateway_leases_lost_total{FLEET}[$__rate_interval]))", "leases"),),
        ),
        Panel(
            title="Usage events that wait for their export",
            description="Of the slowest group of readers, over all tenants. It grows while no exporter runs.",
            queries=(Query("sum(llm_gateway_usage_export_lag_events{FLEET})", "events"),),
        ),
        Panel(
            title="Lost to the export",
            description="Usage events trimmed before a group of readers had them, and log lines given up because "
            "standard output was not read.",
            queries=(
                Query("sum(increase(llm_gateway_usage_lost_total{FLEET}[$__rate_interval]))", "usage events"),
                Query("sum(increase(llm_gateway_log_lines_dropped_total{FLEET}[$__rate_interval]))", "log lines"),
            ),
        ),
    ),
)

CONTROL = Dashboard(
    uid="llm-gateway-control",
    title="LLM Gateway / Control plane",
    description="The registry of every replica, Redis, token issuers, the export of usage.",
    variables=(NAMESPACE, JOB),
    rows=(_REGISTRY, _REDIS),
)
