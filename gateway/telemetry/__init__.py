"""What happened, for operators: metrics, one log line per request, trace context and request ids.

The only package that imports prometheus_client. It observes and never decides; nothing here sees a prompt, a completion
or a credential.
"""

from gateway.telemetry.cached import CacheMetrics
from gateway.telemetry.folder import mark_process_dead, prepare_metrics_folder
from gateway.telemetry.log import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.process_log import configure_logging
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.rollouts import RolloutCounts
from gateway.telemetry.trace import TraceContext, new_request_id, new_trace, request_id_from, trace_from
from gateway.telemetry.writer import SHARED_BLOCK_BYTES, LineWriter

__all__ = [
    "SHARED_BLOCK_BYTES",
    "AccessLog",
    "CacheMetrics",
    "LineWriter",
    "Metrics",
    "RequestRecord",
    "RolloutCounts",
    "TraceContext",
    "configure_logging",
    "mark_process_dead",
    "new_request_id",
    "new_trace",
    "prepare_metrics_folder",
    "request_id_from",
    "trace_from",
]
