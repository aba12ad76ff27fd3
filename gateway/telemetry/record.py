"""What is known about one request, filled along its way: the only mutable value that travels with it.

One record per request, owned by the task that serves it; it is read once, when the request has finished, by the metrics
and by the access log. It never holds a prompt, a completion or a credential.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.model import Usage
from gateway.telemetry.trace import TraceContext

_NO_TRACE = TraceContext("0" * 32)


class RequestRecord(msgspec.Struct, kw_only=True, gc=False):
    """One request; every field has a default that means "not known" or "did not happen".

    Times ending in ``_at`` are monotonic seconds, ``_s`` are seconds. Fields that become labels of metrics must hold
    names of the registry, never what a caller wrote: see each. (A slotted struct outside the cycle collector, so that
    an open stream costs it nothing: nothing here may refer back to the record.)
    """

    event: Literal["request", "shadow"] = "request"
    """What its log line is: of a request, or of a copy that a shadow was sent."""
    request_id: str = ""
    trace: TraceContext = _NO_TRACE
    operation: str = "chat"
    """``gen_ai.operation.name``."""
    tenant: str = ""
    """The authenticated tenant's name; ``""`` until there is one."""
    key: str = ""
    """The name of the key, never the key."""
    scenario: str = ""
    """The resolved scenario's name (not the alias that was asked for); ``""`` until there is one."""
    variant: str = "base"
    rollout: str = ""
    """Names the canary of the scenario and what the registry says of it; ``""`` where there is none."""
    generation: int = 0
    """Of the registry's snapshot that the request runs on; 0 until the caller is known."""
    backend: str = ""
    """The backend of the last attempt."""
    provider: str = ""
    request_model: str = ""
    """``gen_ai.request.model``: the scenario's name, or ``""``."""
    response_model: str = ""
    """``gen_ai.response.model``: the model as the backend's document names it, never what a reply claims."""
    stream: bool = False
    attempts: list[tuple[str, str, float, str]] = []
    """Backend, outcome, duration in seconds, detail for operators; in order."""
    status: int = 0
    """The HTTP status as an operator should read it: 499 for a gone client, 502 or 504 for a stream that broke."""
    error_code: str = ""
    """``error.code`` of the answer, one of a fixed set; ``""`` for success."""
    outcome: str = ""
    """How it ended in one word, for people: ``ok``, ``client_gone``, an error's outcome."""
    usage: Usage | None = None
    cost_nano_usd: int = 0
    started_at: float = 0.0
    upstream_wait_s: float = 0.0
    """Time in which nothing could be done but wait for a backend."""
    client_wait_s: float = 0.0
    """Time in which nothing could be done but wait for the client: for its body, or for it to read."""
    queue_wait_s: float = 0.0
    """Time in which nothing could be done but wait for a backend to have room or to be ready."""
    left_queue: bool = False
    """The client left while its request waited there, so that no backend had begun to work on it."""
    first_token_at: float | None = None
    last_token_at: float | None = None
    finished_at: float = 0.0
    cache: str = ""
    """What the cache did: ``hit``, ``miss`` and so on, one of a fixed set; ``""`` where the scenario has none."""
    stream_end_reason: str | None = None
    """Of a stream whose head was sent: ``complete``, or why it ended otherwise; one of a fixed set."""
    bytes_in: int = 0
    bytes_out: int = 0
    dropped_fields: tuple[str, ...] = ()
    """What was left out because the backend cannot do it, or must not be asked for it: places in the request, whose
    names a caller may have chosen. No label is made of them."""
    detail: str = ""
    """For operators only."""
    client_ip: str = ""

    @property
    def duration_s(self) -> float:
        """From the first byte of the request to the last of the reply, in seconds (>= 0)."""
        return max(self.finished_at - self.started_at, 0.0)

    @property
    def overhead_s(self) -> float:
        """Time that was not waiting for the backend, for the client or in a backend's queue, in seconds (>= 0)."""
        return max(self.duration_s - self.upstream_wait_s - self.client_wait_s - self.queue_wait_s, 0.0)
