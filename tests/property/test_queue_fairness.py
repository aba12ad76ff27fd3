"""Whoever waits for a backend is served in turn with the other tenants, whatever these do."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.upstream.fairness import FairQueue

TENANTS = ("acme", "bolt", "corp", "dune")


class Fairness(RuleBasedStateMachine):
    """The queue beside plain lists, and how often each tenant was served while another had somebody waiting, too."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue()
        self.lines: dict[str, list[int]] = {tenant: [] for tenant in TENANTS}
        self.owner: dict[int, str] = {}
        self.served = {pair: Counter[str]() for pair in combinations(TENANTS, 2)}
        self.last: int | None = None

    @rule(tenant=st.sampled_from(TENANTS))
    def arrives(self, tenant: str) -> None:
        """A request lines up."""
        number = len(self.owner)
        self.owner[number] = tenant
        self.queue.put(tenant, number, number)
        self.lines[tenant].append(number)
        self.last = None

    @precondition(lambda self: any(self.lines.values()))
    @rule()
    def is_served(self) -> None:
        """The next one is the first of its tenant."""
        number = self.queue.take()
        assert number is not None
        tenant = self.owner[number]
        assert self.lines[tenant].pop(0) == number
        self.last = number
        for pair, counts in self.served.items():
            if tenant in pair and all(self.lines[each] or each == tenant for each in pair):
                counts[tenant] += 1
        self._forget_who_waits_no_more(tenant)

    @precondition(lambda self: self.last is not None)
    @rule()
    def comes_back(self) -> None:
        """The one that was taken last was taken in vain: it is the next again."""
        assert self.last is not None
        number, self.last = self.last, None
        tenant = self.owner[number]
        for pair, counts in self.served.items():
            if tenant in pair and self.lines[tenant] and counts[tenant]:
                counts[tenant] -= 1
        self.lines[tenant].insert(0, number)
        self.queue.put_back(tenant, number, number)
        assert self.queue.take() == number
        self.queue.put_back(tenant, number, number)

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        """Anybody may leave, once."""
        number = data.draw(st.sampled_from([each for line in self.lines.values() for each in line]))
        tenant = self.owner[number]
        assert self.queue.remove(tenant, number)
        assert not self.queue.remove(tenant, number)
        self.lines[tenant].remove(number)
        self.last = None
        self._forget_who_waits_no_more(tenant)

    def _forget_who_waits_no_more(self, tenant: str) -> None:
        if not self.lines[tenant]:
            for pair, counts in self.served.items():
                if tenant in pair:
                    counts.clear()

    @invariant()
    def nobody_is_preferred(self) -> None:
        """Of two tenants that wait all the time, none is ahead by more than one; and nobody is lost."""
        for (one, other), counts in self.served.items():
            assert abs(counts[one] - counts[other]) <= 1, (one, other, counts)
        assert len(self.queue) == sum(map(len, self.lines.values()))
        assert any(self.lines.values()) or self.queue.take() is None


TestFairness = Fairness.TestCase
