"""Records as the pipeline would fill them, and scrapes as a Prometheus would read them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from prometheus_client.samples import Sample

from gateway.model import Snapshot, Usage
from gateway.telemetry import Metrics, RequestRecord

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "support",
    "gen_ai_response_model": "Qwen/Qwen2.5-7B",
}


class Scrape:
    """One rendered and parsed exposition."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    def value(self, name: str, **labels: str) -> float:
        """The one sample with this name and exactly these labels."""
        found = [sample.value for sample in self.samples if sample.name == name and sample.labels == labels]
        assert len(found) == 1, f"{name}{labels}: {len(found)} samples"
        return found[0]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The label sets of every sample with this name."""
        return [sample.labels for sample in self.samples if sample.name == name]

    def buckets(self, name: str, **labels: str) -> dict[str, float]:
        """A histogram's cumulative buckets by ``le``."""
        found = {}
        for sample in self.samples:
            rest = {key: value for key, value in sample.labels.items() if key != "le"}
            if sample.name == f"{name}_bucket" and rest == labels:
                found[sample.labels["le"]] = sample.value
        return found


def scrape(metrics: Metrics, accept: str | None = None) -> Scrape:
    """What a Prometheus would read."""
    body, content_type = metrics.render(accept)
    parse = openmetrics_families if content_type.startswith("application/openmetrics-text") else text_families
    return Scrape(sample for family in parse(body.decode()) for sample in family.samples)


def record(**changes: object) -> RequestRecord:
    """A plain call that went well, with changes."""
    made = RequestRecord(
        request_id="req_1",
        tenant="acme",
        key="acme-ci",
        scenario="support",
        request_model="support",
        backend="qwen",
        provider="openai",
        response_model="Qwen/Qwen2.5-7B",
        status=200,
        outcome="ok",
        usage=Usage(input_tokens=16, cached_input_tokens=4, output_tokens=5),
        cost_nano_usd=12_300,
        started_at=100.0,
        finished_at=100.5,
        upstream_wait_s=0.4,
        client_wait_s=0.05,
        attempts=[("qwen", "ok", 0.4, "")],
        client_ip="10.0.0.1",
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def stream_record(**changes: object) -> RequestRecord:
    """A stream of five tokens that went well: the first after 0.02 s, the last 0.2 s later."""
    return record(
        **{
            "stream": True,
            "first_token_at": 100.02,
            "last_token_at": 100.22,
            "stream_end_reason": "complete",
            **changes,
        }
    )


def finish(metrics: Metrics, made: RequestRecord) -> None:
    """The whole way of a request, as far as metrics see it."""
    metrics.request_started()
    metrics.request_finished(made)


def snapshot(generation: int = 1, content: str = "abc", loaded_at: float = 1000.0) -> Snapshot:
    """A registry with two live backends and a refused scenario."""
    return Snapshot(
        generation=generation,
        hash=content,
        loaded_at=loaded_at,
        keys={},
        tenants={},
        scenarios={},
        backends={},
        object_counts={("Backend", "live"): 2, ("Scenario", "refused"): 1},
    )
