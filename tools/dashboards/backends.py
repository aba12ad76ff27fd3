"""Which backend is sick, what its attempts say, and whether the fallbacks hold."""

from __future__ import annotations

from tools.dashboards.model import BACKEND, JOB, NAMESPACE, Dashboard, Panel, Query, Row, quantile

_WHICH = 'FLEET,backend=~"$backend"'
_ATTEMPTS = f"llm_gateway_upstream_attempts_total{{{_WHICH}}}"
_REACHED = 'llm_gateway_requests_total{FLEET,backend!=""}'
_AT_FAULT = f'llm_gateway_upstream_attempts_total{{{_WHICH},outcome!~"ok|refused|busy|cancelled"}}'

_HEALTH = Row(
    title="Which backend is sick, and of what?",
    panels=(
        Panel(
            title="Health",
            description="By backend, red while the last five attempts of a replica all failed by the backend's fault. "
            "Seen by requests alone: a backend that nobody calls is not shown, and after five quiet minutes none is "
            "red.",
            kind="state-timeline",
            width=12,
            texts=(("1", "works", "green"), ("0", "down", "red")),
            queries=(Query(f"min by (backend) (llm_gateway_backend_healthy{{{_WHICH}}})", "{{backend}}"),),
        ),
        Panel(
            title="Failed attempts, by outcome",
            description="unauthorized: renew the credential. misconfigured: address or model is wrong. rate_limited: "
            "the provider throttles. *_timeout, connect_error, reset: the backend or the network. error_in_body, "
            "protocol_error, server_error: the model server; detail is in attempts of the log line.",
            width=12,
            unit="reqps",
            stack=True,
            queries=(
                Query(f"sum by (backend, outcome) (rate({_AT_FAULT}[$__rate_interval]))", "{{backend}} {{outcome}}"),
            ),
        ),
        Panel(
            title="Attempts by backend",
            description="How the traffic is spread. It follows the weights as long as nothing fails.",
            unit="reqps",
            stack=True,
            queries=(Query(f"sum by (backend) (rate({_ATTEMPTS}[$__rate_interval]))", "{{backend}}"),),
        ),
        Panel(
            title="Share of failed attempts",
            description="Of all attempts but those that were never sent (busy) or were given up by the caller "
            "(cancelled).",
            unit="percentunit",
            max=1,
            queries=(
                Query(
                    f"sum by (backend) (rate({_AT_FAULT}[$__rate_interval]))"
                    f" / (sum by (backend) (rate(llm_gateway_upstream_attempts_total{{{_WHICH},"
                    'outcome!~"busy|cancelled"}[$__rate_interval])) > 0)',
                    "{{backend}}",
                ),
            ),
        ),
        Panel(
            title="Share of requests with a fallback",
            description="Requests that had a failed attempt before their last one, by scenario, of those that reach a "
            "backend. As it grows, fallbacks carry the traffic, and their capacity is what keeps errors away.",
            unit="percentunit",
            max=1,
            steps=((0.1, "red"),),
            queries=(
                Query(
                    "sum by (scenario) (rate(llm_gateway_fallback_requests_total{FLEET}[$__rate_interval]))"
                    f" / (sum by (scenario) (rate({_REACHED}[$__rate_interval])) > 0)",
                    "{{scenario}}",
                ),
            ),
        ),
        Panel(
            title="Throttled and refused credentials",
            description="429 of the provider, and 401 or 403: both are ours to settle with the provider.",
            unit="reqps",
            queries=(
                Query(
                    f"sum by (backend, outcome) (rate(llm_gateway_upstream_attempts_total{{{_WHICH},"
                    'outcome=~"rate_limited|unauthorized|misconfigured"}[$__rate_interval]))',
                    "{{backend}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Broken streams by backend",
            description="Streams that this backend began and did not end. Attempts count as ok when the first event "
            "is there, so that a backend may be healthy and break them all.",
            unit="reqps",
            stack=True,
            queries=(
                Query(
                    f"sum by (backend, reason) (rate(llm_gateway_stream_ends_total{{{_WHICH},"
                    'reason!~"complete|client_gone|shutting_down"}[$__rate_interval]))',
                    "{{backend}} {{reason}}",
                ),
            ),
        ),
    ),
)

_LOAD = Row(
    title="How much is under way, and how fast?",
    panels=(
        Panel(
            title="In flight by backend",
            description="Attempts under way. A plateau at maxConcurrentRequests times replicas is a full backend.",
            queries=(Query(f"sum by (backend) (llm_gateway_backend_inflight_requests{{{_WHICH}}})", "{{backend}}"),),
        ),
        Panel(
            title="Ready endpoints",
            description="Ready pods of a backend that is a Service of the cluster, as the gateway knows them. 0 is "
            "scaled to zero, or down. Backends with an address of their own are not shown.",
            queries=(Query(f"max by (backend) (llm_gateway_backend_endpoints{{{_WHICH}}})", "{{backend}}"),),
        ),
        Panel(
            title="Turned away as busy",
            description="Attempts that were not made because a replica had maxConcurrentRequests under way there. The "
            "plan's next backend was asked; without one the caller had 503.",
            unit="reqps",
            queries=(
                Query(
                    f'sum by (backend) (rate(llm_gateway_upstream_attempts_total{{{_WHICH},outcome="busy"}}'
                    "[$__rate_interval]))",
                    "{{backend}}",
                ),
            ),
        ),
        Panel(
            title="Queue by backend",
            description="Requests that wait for a backend with no ready endpoint or no free place; an autoscaler of "
            "the model server goes by it.",
            queries=(Query(f"sum by (backend) (llm_gateway_backend_queued_requests{{{_WHICH}}})", "{{backend}}"),),
        ),
        Panel(
            title="Wait in the queue",
            description="How long those that waited did, whatever became of them. For a backend that scales to zero "
            "it is the time that it takes to start.",
            unit="s",
            queries=tuple(
                Query(
                    quantile(q, "llm_gateway_backend_queue_wait_seconds", _WHICH, "backend"),
                    f"{{{{backend}}}} p{q * 100:.0f}",
                )
                for q in (0.5, 0.95)
            ),
        ),
        Panel(
            title="Time to first token, p95 by model",
            description="Of successful streams, as the GenAI conventions have it.",
            unit="s",
            queries=(
                Query(
                    quantile(0.95, "gen_ai_server_time_to_first_token", "FLEET", "gen_ai_response_model"),
                    "{{gen_ai_response_model}}",
                ),
            ),
        ),
        Panel(
            title="Duration, p95 by model and error",
            description="Failures that take as long as a timeout are a backend that hangs; short ones are one that "
            "refuses.",
            unit="s",
            queries=(
                Query(
                    quantile(0.95, "gen_ai_server_request_duration", "FLEET", "gen_ai_response_model", "error_type"),
                    "{{gen_ai_response_model}} {{error_type}}",
                ),
            ),
        ),
    ),
)

BACKENDS = Dashboard(
    uid="llm-gateway-backends",
    title="LLM Gateway / Backends",
    description="Health, attempts, share of fallbacks, load and queues by backend.",
    variables=(NAMESPACE, JOB, BACKEND),
    rows=(_HEALTH, _LOAD),
)
