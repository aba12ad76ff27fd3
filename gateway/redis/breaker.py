"""The breaker of one link: whether commands are tried at all.

Invariant: closed it lets everything through; open, nothing but the one probe of the link that it belongs to. It opens
after ``failures_max`` failures with no answer in between, or when told that nothing can be reached, and only a probe
closes it. All commands that fail within one deadline are one failure: how long a stall must be to open it does not
depend on how many commands meet it. It holds no clock and does no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Breaker:
    """``on_change`` is called with the reason at each opening and with "" at each closing."""

    __slots__ = ("_deadline_s", "_failures", "_failures_max", "_next_s", "_on_change", "open", "reason")

    def __init__(self, failures_max: int, deadline_s: float, on_change: Callable[[str], None]) -> None:
        self._failures_max = failures_max
        self._deadline_s = deadline_s
        self._next_s = 0.0  # failures before it belong to the one that was counted last
        self._on_change = on_change
        self._failures = 0
        self.open = False
        self.reason = ""

    def answered(self) -> None:
        """A command was answered in time."""
        self._failures = 0

    def failed(self, at_s: float) -> None:
        """Commands were not, as was seen at ``at_s``, in seconds of a clock that never goes back."""
        if at_s < self._next_s:
            return
        self._next_s = at_s + self._deadline_s
        self._failures += 1
        if self._failures >= self._failures_max:
            self.trip(f"{self._failures} deadlines in a row without an answer")

    def trip(self, reason: str) -> None:
        """Open, if it is not."""
        if not self.open:
            self.open = True
            self.reason = reason
            self._on_change(reason)

    def close(self) -> None:
        """Close, if it is not: the probe was answered in time."""
        self._failures = 0
        if self.open:
            self.open = False
            self.reason = ""
            self._on_change("")
