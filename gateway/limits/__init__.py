"""Admission: a lease over all limits of a call."""

from gateway.limits.lease import NOTHING_USED, End, Lease
from gateway.limits.limiter import Limiter, LimitOptions, Observer

__all__ = ["NOTHING_USED", "End", "Lease", "LimitOptions", "Limiter", "Observer"]
