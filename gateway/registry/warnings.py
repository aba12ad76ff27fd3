"""What is right and still worth telling an operator. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.registry.parse import Candidate, ObjectId


def warnings_of(served: Mapping[ObjectId, Candidate]) -> Iterator[str]:
    """Yield one line for each thing to know."""
    if not served:
        yield "the registry is empty: nobody can call anything"
