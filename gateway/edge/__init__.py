"""The data port: from bytes on a client's connection to a call of the pipeline, and back."""

from gateway.edge.build import EdgeOptions, build
from gateway.edge.call import EdgeLimits

__all__ = ["EdgeLimits", "EdgeOptions", "build"]
