"""Which backends a call tries, and in which order."""

from gateway.routing.conditions import Asking
from gateway.routing.plan import BY_CONDITION, check_doable, make_plan

__all__ = ["BY_CONDITION", "Asking", "check_doable", "make_plan"]
