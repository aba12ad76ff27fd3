"""What a call used: reported, estimated, priced, and settled exactly once."""

from gateway.meter.stream import MeteredStream
from gateway.meter.usage import charge, estimate_input, estimate_usage, with_input_of

__all__ = ["MeteredStream", "charge", "estimate_input", "estimate_usage", "with_input_of"]
