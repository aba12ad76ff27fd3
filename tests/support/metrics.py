"""A scrape of the gateway's metrics as values that a test can ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Sample:
    """One line of a scrape."""

    name: str
    labels: dict[str, str]
    value: float


class Scrape:
    """The samples of one scrape in the Prometheus text format; raises ValueError where it is not valid."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.types: dict[str, str] = {}
        self.samples: list[Sample] = []
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            self.samples += [Sample(each.name, dict(each.labels), each.value) for each in family.samples]

    def find(self, name: str, **labels: str) -> Iterator[Sample]:
        """The samples with this full name (``_total``, ``_count``, ... included) and at least these labels."""
        wanted = labels.items()
        return (each for each in self.samples if each.name == name and wanted <= each.labels.items())

    def value(self, name: str, **labels: str) -> float:
        """The sum of those samples; 0 where there is none, as a counter that nobody has touched is absent."""
        return sum(each.value for each in self.find(name, **labels))

    def has(self, name: str, **labels: str) -> bool:
        """Whether there is such a sample."""
        return next(self.find(name, **labels), None) is not None
