"""Counting in plain memory: the values behind every metric of one process.

One event loop owns the values and changes them without locks; another thread may read them at any time and sees each
number whole. What a scrape reads of one histogram may be one observation apart between its sum and its buckets.
Invariants: a family never has more children than its bound, whatever labels it is asked for; a child never goes.
"""

from __future__ import annotations

from bisect import bisect_left

from gateway.telemetry.families import Spec

OTHER = "other"
"""The value of every label of the child that takes what does not fit below the bound."""

Labels = tuple[str, ...]


class Cell:
    """A counter's or gauge's number; integers stay exact."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class HistogramCell:
    """Observations in buckets: ``counts`` is per bucket (not cumulative), the last one above every bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        """Count one observation; a bound belongs to the bucket below it (``le``)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Numbers:
    """The children of one counter or gauge by label values."""

    __slots__ = ("children", "spec")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.children: dict[Labels, Cell] = {labels: Cell() for labels in spec.zeros} if spec.labels else {(): Cell()}

    def child(self, *labels: str) -> Cell:
        """The child with these label values, in the order of the spec."""
        cell = self.children.get(labels)
        if cell is None:
            cell = self.children.setdefault(_within(self.children, self.spec, labels), Cell())
        return cell


class Histograms:
    """The children of one histogram by label values."""

    __slots__ = ("children", "spec")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.children: dict[Labels, HistogramCell] = {} if spec.labels else {(): HistogramCell(spec.bounds)}

    def child(self, *labels: str) -> HistogramCell:
        """The child with these label values, in the order of the spec."""
        cell = self.children.get(labels)
        if cell is None:
            labels = _within(self.children, self.spec, labels)
            cell = self.children.setdefault(labels, HistogramCell(self.spec.bounds))
        return cell


class Words:
    """Label values, first come first served up to a bound; the rest become one replacement. ``""`` is always kept."""

    __slots__ = ("_bound", "_known", "_rest")

    def __init__(self, bound: int, rest: str = OTHER) -> None:
        self._known: set[str] = set()
        self._bound = bound
        self._rest = rest

    def within(self, word: str) -> str:
        """The word itself, or the replacement where the bound is reached."""
        if word in self._known or not word:
            return word
        if len(self._known) >= self._bound:
            return self._rest
        self._known.add(word)
        return word


def _within(children: dict[Labels, Cell] | dict[Labels, HistogramCell], spec: Spec, labels: Labels) -> Labels:
    """These labels while there is room, else those of the child for the rest. The rest itself is one more."""
    return labels if len(children) < spec.max_children else (OTHER,) * len(spec.labels)
