"""The lease without limits: it admits everybody and is settled once."""

from __future__ import annotations

from gateway.limits import admit
from gateway.model import Usage


def test_the_first_settlement_counts() -> None:
    """Whoever comes later changes nothing."""
    lease = admit()
    assert not lease.is_settled
    assert lease.settle(Usage(output_tokens=3))
    assert not lease.settle(Usage(output_tokens=9))
    assert not lease.settle(None)
    assert lease.settled_usage == Usage(output_tokens=3)


def test_a_call_that_used_nothing() -> None:
    """A failed call ends its lease with nothing to charge."""
    lease = admit()
    assert lease.settle(None)
    assert lease.is_settled
    assert lease.settled_usage is None
