"""Whether a backend is seen to work: told by the attempts that requests make, since nothing else asks it anything.

Invariants: a backend is down after ``FAILURES_IN_A_ROW`` attempts in a row that failed by its fault and until the next
one that shows it working; what was seen ``FORGOTTEN_AFTER_S`` ago says nothing of now. A backend that nobody has called
has no gauge. Nothing is decided by this: a plan is made without it.
"""

from __future__ import annotations

from typing import Final

from gateway.clock import monotonic
from gateway.errors import BACKEND_FAULTS
from gateway.telemetry.series import Cell, Numbers

FAILURES_IN_A_ROW: Final = 5
"""A backend that fails every third call at random looks down in one of 243 calls."""

FORGOTTEN_AFTER_S: Final = 300.0
"""Seconds after the last failure until a backend that is not tried any more counts as not known to be down."""


class BackendsHealth:
    """The health of every backend that was called; ``gauges`` is that of ``families.BACKEND_HEALTHY``."""

    def __init__(self, gauges: Numbers) -> None:
        self._gauges = gauges
        self._states: dict[str, _State] = {}

    def note(self, backend: str, outcome: str) -> None:
        """An attempt at ``backend`` has ended."""
        state = self._states.get(backend)
        if state is None:
            state = self._states[backend] = _State(self._gauges.child(backend))
        if outcome == "ok":
            if state.failures:
                state.worked()
        elif outcome in BACKEND_FAULTS:
            state.failed(monotonic())
        elif outcome == "refused":  # it judged a request, and was able to
            state.worked()

    def forget(self, now: float) -> None:
        """Forget the failures of backends whose last attempt failed too long before ``now``, monotonic seconds."""
        for state in self._states.values():
            if state.failures and now - state.failed_at >= FORGOTTEN_AFTER_S:
                state.worked()


class _State:
    """One backend: how many attempts in a row failed, and when the last of them did."""

    __slots__ = ("_gauge", "failed_at", "failures")

    def __init__(self, gauge: Cell) -> None:
        self._gauge = gauge
        self._gauge.value = 1
        self.failures = 0
        self.failed_at = 0.0

    def worked(self) -> None:
        self.failures = 0
        self._gauge.value = 1

    def failed(self, now: float) -> None:
        self.failures += 1
        self.failed_at = now
        if self.failures >= FAILURES_IN_A_ROW:
            self._gauge.value = 0
