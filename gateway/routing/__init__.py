"""Which backends a call tries, and in which order."""

from gateway.routing.conditions import Asking
from gateway.routing.plan import make_plan

__all__ = ["Asking", "make_plan"]
