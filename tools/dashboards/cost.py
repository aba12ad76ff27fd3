"""What it costs, what for, and what caches save."""

from __future__ import annotations

from tools.dashboards.model import JOB, NAMESPACE, SCENARIO, TENANT, Dashboard, Panel, Query, Row, quantile

_WHAT = 'FLEET,scenario=~"$scenario"'
_WHOSE = f'{_WHAT},tenant=~"$tenant"'
_COST = f"llm_gateway_cost_usd_total{{{_WHOSE}}}"
_ANSWERED = f'llm_gateway_requests_total{{{_WHOSE},code="200"}}'
_TOKENS = "llm_gateway_tokens_total"

_MONEY = Row(
    title="What does it cost?",
    panels=(
        Panel(
            title="Cost an hour, by scenario",
            description="USD an hour at the pace of the moment.",
            unit="currencyUSD",
            stack=True,
            queries=(Query(f"sum by (scenario) (rate({_COST}[$__rate_interval])) * 3600", "{{scenario}}"),),
        ),
        Panel(
            title="Cost in this time range",
            description="USD, by scenario. A backend without a price costs nothing here.",
            kind="bargauge",
            unit="currencyUSD",
            queries=(Query(f"sort_desc(sum by (scenario) (increase({_COST}[$__range])))", "{{scenario}}"),),
        ),
        Panel(
            title="Cost of 1000 requests",
            description="Successful ones, by scenario. A jump without a change of prices is longer prompts or answers.",
            unit="currencyUSD",
            queries=(
                Query(
                    f"1000 * sum by (scenario) (rate({_COST}[$__rate_interval]))"
                    f" / (sum by (scenario) (rate({_ANSWERED}[$__rate_interval])) > 0)",
                    "{{scenario}}",
                ),
            ),
        ),
        Panel(
            title="Cost of shadows an hour",
            description="USD an hour that copies for shadows cost, by scenario. No tenant is charged for it.",
            unit="currencyUSD",
            queries=(
                Query(
                    f"sum by (scenario) (rate(llm_gateway_shadow_cost_usd_total{{{_WHAT}}}[$__rate_interval])) * 3600",
                    "{{scenario}}",
                ),
            ),
        ),
        Panel(
            title="Tokens of shadows",
            description="Tokens a second that backends reported for copies, by type; they are not among those charged.",
            queries=(
                Query(
                    f"sum by (type) (rate(llm_gateway_shadow_tokens_total{{{_WHAT}}}[$__rate_interval]))", "{{type}}"
                ),
            ),
        ),
        Panel(
            title="Tokens by type",
            description="Charged tokens a second. cached_input is contained in input: what the provider had in its "
            "own prompt cache.",
            queries=(Query(f"sum by (type) (rate({_TOKENS}{{{_WHOSE}}}[$__rate_interval]))", "{{type}}"),),
        ),
        Panel(
            title="Input that the provider had cached",
            description="The share of input tokens that the backend reports as cached, by scenario: long fixed "
            "prompts first make it large.",
            unit="percentunit",
            max=1,
            queries=(
                Query(
                    f'sum by (scenario) (rate({_TOKENS}{{{_WHOSE},type="cached_input"}}[$__rate_interval]))'
                    f' / (sum by (scenario) (rate({_TOKENS}{{{_WHOSE},type="input"}}[$__rate_interval])) > 0)',
                    "{{scenario}}",
                ),
            ),
        ),
        Panel(
            title="Tokens of a call",
            description="The mean by model and type: growing input is prompts or histories that grow.",
            queries=(
                Query(
                    "sum by (gen_ai_response_model, gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{FLEET}"
                    "[$__rate_interval])) / sum by (gen_ai_response_model, gen_ai_token_type) "
                    "(rate(gen_ai_client_token_usage_count{FLEET}[$__rate_interval]))",
                    "{{gen_ai_response_model}} {{gen_ai_token_type}}",
                ),
            ),
        ),
    ),
)

_CACHES = "llm_gateway_cache_requests_total"
_ASKED = f'{_CACHES}{{{_WHAT},result=~"hit|similar|coalesced|miss|refresh"}}'
_SPARED = f'{_CACHES}{{{_WHAT},result=~"hit|similar|coalesced"}}'

_CACHE = Row(
    title="What do caches save, and do they work?",
    panels=(
        Panel(
            title="Calls by what the cache did",
            description="hit: a kept answer; similar: to a similar question. coalesced: that of another's "
            "identical call. miss, refresh: a backend was called. bypass: none was wanted. unavailable, not_kept: "
            "Redis did not do it.",
            unit="reqps",
            stack=True,
            queries=(Query(f"sum by (result) (rate({_CACHES}{{{_WHAT}}}[$__rate_interval]))", "{{result}}"),),
        ),
        Panel(
            title="Share of calls that no backend had to answer",
            description="Kept or shared answers, of all calls that looked for one. A fall is a change of the scenario, "
            "which begins with an empty cache, or of what callers ask.",
            unit="percentunit",
            max=1,
            queries=(
                Query(
                    f"sum by (scenario) (rate({_SPARED}[$__rate_interval]))"
                    f" / (sum by (scenario) (rate({_ASKED}[$__rate_interval])) > 0)",
                    "{{scenario}}",
                ),
            ),
        ),
        Panel(
            title="Similarity of answers given to similar questions",
            description="The least similar tenth, and the middle, by scenario. Look at answers near the threshold "
            "before it is lowered.",
            queries=tuple(
                Query(
                    quantile(q, "llm_gateway_cache_similarity", _WHAT, "scenario"), f"{{{{scenario}}}} p{q * 100:.0f}"
                )
                for q in (0.1, 0.5)
            ),
            decimals=3,
            max=1,
        ),
        Panel(
            title="Failures of the cache's Redis",
            description="Commands not executed or not answered in time: calls are made as if nothing was kept.",
            unit="ops",
            queries=(
                Query(
                    "sum by (reason) (rate(llm_gateway_cache_redis_failures_total{FLEET}[$__rate_interval]))",
                    "{{reason}}",
                ),
            ),
        ),
    ),
)

COST = Dashboard(
    uid="llm-gateway-cost",
    title="LLM Gateway / Cache and cost",
    description="Cost, tokens, and what caches save.",
    variables=(NAMESPACE, JOB, TENANT, SCENARIO),
    rows=(_MONEY, _CACHE),
)
