"""Admission: a lease over all limits of a call."""

from gateway.limits.lease import Lease, admit

__all__ = ["Lease", "admit"]
