"""Who uses what, whose limits are near, who is refused and why: for on-call, support and whoever sends bills."""

from __future__ import annotations

from tools.dashboards.model import JOB, NAMESPACE, SCENARIO, TENANT, Dashboard, Panel, Query, Row

_WHO = 'FLEET,tenant=~"$tenant"'
_WHAT = f'{_WHO},scenario=~"$scenario"'
_REQUESTS = f"llm_gateway_requests_total{{{_WHAT}}}"
_FAILED = f'llm_gateway_requests_total{{{_WHAT},code=~"5.."}}'
_BUDGET = f'llm_gateway_limit_utilization_ratio{{{_WHO},kind="budget"}}'

_USAGE = Row(
    title="Who uses how much?",
    panels=(
        Panel(
            title="Requests by tenant",
            description="The ten tenants with most requests. Requests without a tenant were refused before one was "
            "known. Tenants beyond LLM_GATEWAY_METRICS_MAX_TENANTS are called other.",
            unit="reqps",
            stack=True,
            queries=(Query(f"topk(10, sum by (tenant) (rate({_REQUESTS}[$__rate_interval])))", "{{tenant}}"),),
        ),
        Panel(
            title="Tokens by tenant",
            description="Charged input and output tokens a second of the ten largest. Cached input is part of the "
            "input and not added again.",
            unit="short",
            stack=True,
            queries=(
                Query(
                    f'topk(10, sum by (tenant) (rate(llm_gateway_tokens_total{{{_WHAT},type=~"input|output"}}'
                    "[$__rate_interval])))",
                    "{{tenant}}",
                ),
            ),
        ),
        Panel(
            title="Cost in this time range",
            description="USD charged, by tenant, the ten dearest. Prices are those of the backends' documents.",
            kind="bargauge",
            unit="currencyUSD",
            queries=(
                Query(
                    f"topk(10, sum by (tenant) (increase(llm_gateway_cost_usd_total{{{_WHAT}}}[$__range])))",
                    "{{tenant}}",
                ),
            ),
        ),
        Panel(
            title="Failed, by tenant",
            description="The share of requests of a tenant that ended with 500 or more, the ten worst. One tenant "
            "alone: its scenarios or its limits' onRedisLoss; all: see the overview.",
            unit="percentunit",
            max=1,
            queries=(
                Query(
                    f"topk(10, sum by (tenant) (rate({_FAILED}[$__rate_interval]))"
                    f" / sum by (tenant) (rate({_REQUESTS}[$__rate_interval])))",
                    "{{tenant}}",
                ),
            ),
        ),
        Panel(
            title="Callers' mistakes",
            description="Requests answered with 4xx but 429 and 499. 401: a wrong or ended key. 404: a scenario that "
            "does not exist for this caller. 400: a body that is wrong.",
            unit="reqps",
            queries=(
                Query(
                    f'sum by (tenant, code) (rate(llm_gateway_requests_total{{{_WHAT},code=~"4..",code!~"429|499"}}'
                    "[$__rate_interval]))",
                    "{{tenant}} {{code}}",
                ),
            ),
        ),
        Panel(
            title="Keys that end",
            description="How long until the first key of a tenant ends with its last digest; negative for a day after "
            "it has. Tenants whose keys do not end are not shown.",
            kind="bargauge",
            unit="s",
            queries=(
                Query(
                    f"sort(min by (tenant) (llm_gateway_key_expiry_timestamp_seconds{{{_WHO}}} > 0) - time())",
                    "{{tenant}}",
                ),
            ),
        ),
    ),
)

_LIMITS = Row(
    title="Whose limits are near, and who was refused?",
    panels=(
        Panel(
            title="Levels of limits",
            description="The share of each limit that is taken, as its last call saw it: a silent tenant's level "
            "stands still and is not turned with the window. A rate at 1 is at work, a budget at 1 refuses until its "
            "window turns.",
            kind="table",
            width=12,
            unit="percentunit",
            decimals=1,
            steps=((0.8, "orange"), (0.95, "red")),
            queries=(
                Query(
                    f"topk(50, max by (tenant, limit, kind) (llm_gateway_limit_utilization_ratio{{{_WHO}}}))",
                    "",
                ),
            ),
        ),
        Panel(
            title="Refused by limits",
            description="Calls answered with 429, by the limit that refused. A rate: the tenant is faster than "
            "agreed. A budget: it is spent. Which key and scenario: the line of the request has the limit in detail.",
            width=12,
            unit="reqps",
            stack=True,
            queries=(
                Query(
                    f"sum by (tenant, limit) (rate(llm_gateway_limit_rejections_total{{{_WHO}}}[$__rate_interval]))",
                    "{{tenant}} {{limit}}",
                ),
            ),
        ),
        Panel(
            title="Budgets",
            description="How much of each day's and month's budget is taken. A saw tooth falls when its window turns.",
            unit="percentunit",
            max=1,
            steps=((0.9, "red"),),
            queries=(Query(f"topk(20, max by (tenant, limit) ({_BUDGET}))", "{{tenant}} {{limit}}"),),
        ),
        Panel(
            title="Budget left at the pace of the last hour",
            description="Time until a budget is spent if its tenant goes on as in the last hour; only budgets that "
            "are being spent. Compare with the time until the window turns (UTC).",
            unit="s",
            queries=(
                Query(
                    f"bottomk(20, (1 - max by (tenant, limit) ({_BUDGET}))"
                    f" / (max by (tenant, limit) (deriv({_BUDGET}[1h])) > 0))",
                    "{{tenant}} {{limit}}",
                ),
            ),
        ),
        Panel(
            title="Would have been refused",
            description="By limits in shadow mode: what enforcing them would do.",
            unit="reqps",
            queries=(
                Query(
                    "sum by (tenant, limit) "
                    f"(rate(llm_gateway_limit_shadow_rejections_total{{{_WHO}}}[$__rate_interval]))",
                    "{{tenant}} {{limit}}",
                ),
            ),
        ),
    ),
)

TENANTS = Dashboard(
    uid="llm-gateway-tenants",
    title="LLM Gateway / Tenants",
    description="Usage, levels of limits, budgets and refusals by tenant.",
    variables=(NAMESPACE, JOB, TENANT, SCENARIO),
    rows=(_USAGE, _LIMITS),
)
