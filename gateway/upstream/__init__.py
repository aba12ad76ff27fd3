"""The upstream client: calls to model backends over our own keep-alive pools, and the in-process ``echo`` provider."""

from gateway.upstream.client import UpstreamClient
from gateway.upstream.limits import UpstreamLimits

__all__ = ["UpstreamClient", "UpstreamLimits"]
