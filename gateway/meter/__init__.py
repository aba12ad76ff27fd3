"""What a call used: reported, estimated, priced, and settled exactly once."""

from gateway.meter.stream import MeteredStream
from gateway.meter.usage import charge, estimate_usage

__all__ = ["MeteredStream", "charge", "estimate_usage"]
