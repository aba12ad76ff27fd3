"""Is it broken, since when, for whom, and is it us or a backend: what is opened first."""

from __future__ import annotations

from tools.dashboards.model import JOB, NAMESPACE, SCENARIO, Dashboard, Panel, Query, Row, quantile

_REQUESTS = 'llm_gateway_requests_total{FLEET,scenario=~"$scenario"}'
_FAILED = 'llm_gateway_requests_total{FLEET,scenario=~"$scenario",code=~"5.."}'
_FIRST_TOKEN = "llm_gateway_time_to_first_token_seconds"  # noqa: S105  # a token of a model
_OF_SCENARIO = 'FLEET,scenario=~"$scenario"'

_NOW = Row(
    title="Is anything wrong now?",
    panels=(
        Panel(
            title="Alerts",
            description="What fires now, and what is about to (pending). Each alert has a section in the runbook, to "
            "which its annotation links.",
            kind="table",
            width=8,
            height=7,
            queries=(
                Query(
                    "sum by (alertstate, alertname, severity, backend, tenant) "
                    '(ALERTS{FLEET,alertname=~"LLMGateway.*"})',
                    "",
                ),
            ),
            hidden=("Value",),
        ),
        Panel(
            title="Failed",
            description="The share of requests that ended with 500 or more within 5 minutes. A stream that broke "
            "after its 200 is counted as the 502 or 504 that it was. The objective is 0.1 % over 30 days.",
            kind="stat",
            unit="percentunit",
            width=4,
            height=7,
            decimals=2,
            steps=((0.001, "orange"), (0.0144, "red")),
            queries=(Query(f"(sum(rate({_FAILED}[5m])) or vector(0)) / sum(rate({_REQUESTS}[5m]))", ""),),
        ),
        Panel(
            title="Late first tokens",
            description="The share of streams within 5 minutes whose first token took more than 2.5 s. The objective "
            "is 5 % over 30 days.",
            kind="stat",
            unit="percentunit",
            width=4,
            height=7,
            decimals=1,
            steps=((0.05, "orange"), (0.3, "red")),
            queries=(
                Query(
                    f'1 - sum(rate({_FIRST_TOKEN}_bucket{{{_OF_SCENARIO},le="2.5"}}[5m]))'
                    f" / sum(rate({_FIRST_TOKEN}_count{{{_OF_SCENARIO}}}[5m]))",
                    "",
                ),
            ),
        ),
        Panel(
            title="In flight",
            description="Requests begun and not yet finished, over all replicas. Open streams are most of it.",
            kind="stat",
            width=4,
            height=7,
            queries=(Query("sum(llm_gateway_inflight_requests{FLEET})", ""),),
        ),
        Panel(
            title="Replicas",
            description="Replicas that Prometheus sees, draining ones included. Fewer than the Deployment wants: pods "
            "do not start, or are not scraped.",
            kind="stat",
            width=4,
            height=7,
            steps=(),
            queries=(Query("count(llm_gateway_build_info{FLEET})", ""),),
        ),
    ),
)

_TRAFFIC = Row(
    title="Traffic and errors: since when, and which scenarios?",
    panels=(
        Panel(
            title="Requests by status",
            description="499 is a client that left. 401 and 404 are callers' mistakes, 429 limits, 502 and 504 "
            "backends, 503 an overloaded backend, limits without Redis or a drain.",
            unit="reqps",
            stack=True,
            queries=(Query(f"sum by (code) (rate({_REQUESTS}[$__rate_interval]))", "{{code}}"),),
        ),
        Panel(
            title="Failed, by scenario",
            description="The share of failed requests of each scenario that has any. One scenario: look at its "
            "backends and at what changed in the registry. All: look at Redis, saturation and the network.",
            unit="percentunit",
            max=1,
            queries=(
                Query(
                    f"sum by (scenario) (rate({_FAILED}[$__rate_interval]))"
                    f" / sum by (scenario) (rate({_REQUESTS}[$__rate_interval]))",
                    "{{scenario}}",
                ),
            ),
        ),
        Panel(
            title="Failed, by last backend",
            description="Failed requests by the backend of their last attempt. Without a backend: nothing could be "
            "asked, because all were disabled, unpriced or busy, or limits were not available.",
            unit="reqps",
            stack=True,
            queries=(Query(f"sum by (backend, code) (rate({_FAILED}[$__rate_interval]))", "{{backend}} {{code}}"),),
        ),
        Panel(
            title="Broken streams",
            description="Streams that did not come to their end, by reason. client_gone is a caller that left and no "
            "fault; shutting_down is a drain that was too short; all others are a backend or the way to it.",
            unit="reqps",
            stack=True,
            queries=(
                Query(
                    'sum by (reason) (rate(llm_gateway_stream_ends_total{FLEET,scenario=~"$scenario",'
                    'reason!="complete"}[$__rate_interval]))',
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Requests by scenario",
            description="Where the traffic is. A scenario that falls to nothing is as much a sign as one that "
            "explodes.",
            unit="reqps",
            stack=True,
            queries=(Query(f"sum by (scenario) (rate({_REQUESTS}[$__rate_interval]))", "{{scenario}}"),),
        ),
        Panel(
            title="Refused before there was a request",
            description="By the server itself: heads that are wrong, too large or too late (4xx codes), and "
            "connections beyond the bound (overloaded).",
            unit="reqps",
            queries=(
                Query(
                    "sum by (code) (rate(llm_gateway_connection_refusals_total{FLEET}[$__rate_interval]))",
                    "{{code}}",
                ),
            ),
        ),
    ),
)

_LATENCY = Row(
    title="Latency: is it the gateway or the model?",
    panels=(
        Panel(
            title="Time to first token",
            description="From a request to the first token of its stream, of every stream that had one; dashed is the "
            "objective. It contains queueing for a backend and failed attempts before the good one.",
            unit="s",
            steps=((2.5, "red"),),
            queries=tuple(Query(quantile(q, _FIRST_TOKEN, _OF_SCENARIO), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
        ),
        Panel(
            title="Time to first token, p95 by scenario",
            description="Which scenario is slow: then see its models among the backends.",
            unit="s",
            queries=(Query(quantile(0.95, _FIRST_TOKEN, _OF_SCENARIO, "scenario"), "{{scenario}}"),),
        ),
        Panel(
            title="The gateway's own time",
            description="What a request took that was neither waiting for a backend nor for the client. A millisecond "
            "is normal; growth without more traffic is a replica without CPU.",
            unit="s",
            steps=((0.25, "red"),),
            queries=tuple(
                Query(quantile(q, "llm_gateway_overhead_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99, 0.999)
            ),
        ),
        Panel(
            title="Whole request",
            description="From a request to its last byte, of requests that reached a backend. Long answers are long: "
            "compare with the time per token.",
            unit="s",
            queries=tuple(
                Query(quantile(q, "gen_ai_server_request_duration"), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)
            ),
        ),
        Panel(
            title="Time per output token, p95 by model",
            description="After the first token. It grows when the model server's batch grows.",
            unit="s",
            queries=(
                Query(
                    quantile(0.95, "gen_ai_server_time_per_output_token", "FLEET", "gen_ai_response_model"),
                    "{{gen_ai_response_model}}",
                ),
            ),
        ),
    ),
)

_SHADOWS = f"llm_gateway_shadow_calls_total{{{_OF_SCENARIO}}}"
_CHECKED = f"llm_gateway_answer_checks_total{{{_OF_SCENARIO}}}"
_VARIANTS = Row(
    title="Do canaries, shadows and promised answers hold?",
    panels=(
        Panel(
            title="Failed, by variant",
            description="The share of failed requests of base and canary. A canary that breaks its bounds is withdrawn "
            "by itself; one that is merely worse is not.",
            unit="percentunit",
            max=1,
            queries=(
                Query(
                    f"sum by (scenario, variant) (rate({_FAILED}[$__rate_interval]))"
                    f" / sum by (scenario, variant) (rate({_REQUESTS}[$__rate_interval]))",
                    "{{scenario}} {{variant}}",
                ),
            ),
        ),
        Panel(
            title="Canaries",
            description="Red where a canary broke its bounds and was withdrawn: all its traffic is at the base again, "
            "until the scenario is changed.",
            kind="state-timeline",
            texts=(("0", "runs", "green"), ("1", "withdrawn", "red")),
            queries=(Query(f"max by (scenario) (llm_gateway_canary_withdrawn{{{_OF_SCENARIO}}})", "{{scenario}}"),),
        ),
        Panel(
            title="Copies for shadows",
            description="By the status of what became of them; nobody sees their answers.",
            unit="reqps",
            stack=True,
            queries=(
                Query(
                    f"sum by (scenario, code) (rate({_SHADOWS}[$__rate_interval]))",
                    "{{scenario}} {{code}}",
                ),
            ),
        ),
        Panel(
            title="First token of base and shadow, p95",
            description="How a candidate compares with what answers now; only streams have a first token.",
            unit="s",
            queries=(
                Query(quantile(0.95, _FIRST_TOKEN, _OF_SCENARIO, "scenario"), "{{scenario}}"),
                Query(
                    quantile(0.95, "llm_gateway_shadow_time_to_first_token_seconds", _OF_SCENARIO, "scenario"),
                    "{{scenario}} shadow",
                ),
            ),
        ),
        Panel(
            title="Duration of shadows, p95",
            description="From the beginning of a copy's call to its last byte; compare with whole requests above.",
            unit="s",
            queries=(Query(quantile(0.95, "llm_gateway_shadow_seconds", _OF_SCENARIO, "scenario"), "{{scenario}}"),),
        ),
        Panel(
            title="Copies that were not sent",
            description="Shadows take no room from callers: what had none was dropped, by reason. Many of them make "
            "the comparison one of quiet moments only.",
            unit="reqps",
            queries=(
                Query(
                    f"sum by (reason) (rate(llm_gateway_shadow_dropped_total{{{_OF_SCENARIO}}}[$__rate_interval]))",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Answers by their schema",
            description="Of scenarios that promise answers of a JSON Schema: whether they conform, and whether the "
            "backend had to be asked again.",
            unit="reqps",
            stack=True,
            queries=(
                Query(
                    f"sum by (scenario, result) (rate({_CHECKED}[$__rate_interval]))",
                    "{{scenario}} {{result}}",
                ),
            ),
        ),
    ),
)

_SATURATION = Row(
    title="Saturation: is there room?",
    panels=(
        Panel(
            title="In flight by replica",
            description="Uneven: connections are older than the newest replica, or one drains.",
            queries=(Query("sum by (pod, instance) (llm_gateway_inflight_requests{FLEET})", "{{pod}} {{instance}}"),),
        ),
        Panel(
            title="CPU of a worker",
            description="Of a core, which is all that one worker can use; more replicas or more workers help, a "
            "larger CPU limit than workers does not.",
            unit="percentunit",
            max=1,
            steps=((0.9, "red"),),
            queries=(
                Query(
                    "sum by (pod, instance) (rate(process_cpu_seconds_total{FLEET}[$__rate_interval])"
                    " and llm_gateway_workers{FLEET})"
                    " / sum by (pod, instance) (llm_gateway_workers{FLEET})",
                    "{{pod}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Memory by replica",
            description="Resident, of all workers. It follows open streams; growth without them is a leak.",
            unit="bytes",
            queries=(
                Query(
                    "sum by (pod, instance) (process_resident_memory_bytes{FLEET} and llm_gateway_workers{FLEET})",
                    "{{pod}} {{instance}}",
                ),
            ),
        ),
    ),
)

OVERVIEW = Dashboard(
    uid="llm-gateway-overview",
    title="LLM Gateway / Overview",
    description="Traffic, errors and broken streams, latency, saturation.",
    variables=(NAMESPACE, JOB, SCENARIO),
    rows=(_NOW, _TRAFFIC, _LATENCY, _VARIANTS, _SATURATION),
)
