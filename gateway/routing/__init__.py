"""Which backends a call tries, and in which order."""

from gateway.routing.plan import make_plan

__all__ = ["make_plan"]
