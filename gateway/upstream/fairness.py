"""An order that is fair between tenants: one of each in turn, and of one tenant those who came first. Pure.

Invariant: of two tenants that both have entries all the time, neither is served more than once more than the other,
however many entries each has.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")

_NUMBER = itemgetter(0)


class FairQueue(Generic[T]):
    """Entries by tenant. ``number`` is an entry's place in the order of arrival, unique in the queue."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, list[tuple[int, T]]] = OrderedDict()  # the tenant whose turn it is comes first
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: str, number: int, entry: T) -> None:
        """Add an entry; a tenant that had none is the last to have its turn."""
        insort(self._lines.setdefault(tenant, []), (number, entry), key=_NUMBER)
        self._size += 1

    def put_back(self, tenant: str, number: int, entry: T) -> None:
        """Add an entry that was taken in vain: its tenant has not had its turn yet."""
        self.put(tenant, number, entry)
        self._lines.move_to_end(tenant, last=False)

    def take(self) -> T | None:
        """The entry that is next, which leaves the queue; None where there is none."""
        if not self._lines:
            return None
        tenant, line = self._lines.popitem(last=False)
        _, entry = line.pop(0)
        if line:
            self._lines[tenant] = line
        self._size -= 1
        return entry

    def remove(self, tenant: str, number: int) -> bool:
        """Take out an entry whoever's turn it is; whether it was there."""
        line = self._lines.get(tenant, [])
        index = bisect_left(line, number, key=_NUMBER)
        if index == len(line) or line[index][0] != number:
            return False
        del line[index]
        if not line:
            del self._lines[tenant]
        self._size -= 1
        return True
