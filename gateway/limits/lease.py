"""The lease of a call, in the form it has without limits: it admits everybody and is settled exactly once.

Invariant: ``settle`` takes effect once; whoever comes later changes nothing. That of a whole answer is
settled once the answer is there, that of a stream after the last byte, the disconnect or the failure, whichever comes.
"""

from __future__ import annotations

from gateway.model import Usage


class Lease:
    """What a call holds while it runs."""

    __slots__ = ("is_settled", "settled_usage")

    def __init__(self) -> None:
        self.is_settled = False
        self.settled_usage: Usage | None = None

    def settle(self, usage: Usage | None) -> bool:
        """End the lease with what was used (None: nothing to charge); False if it had ended before."""
        if self.is_settled:
            return False
        self.is_settled = True
        self.settled_usage = usage
        return True


def admit() -> Lease:
    """Admit a call. Without limits there is nothing to ask for, so this never waits and never refuses."""
    return Lease()
