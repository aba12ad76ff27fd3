"""What is right and still worth telling an operator: what this version accepts without effect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.registry.documents import ScenarioDocument
from gateway.registry.parse import Candidate, ObjectId

_NAMES_MAX = 50


def warnings_of(served: Mapping[ObjectId, Candidate]) -> Iterator[str]:
    """Yield one line for each thing to know."""
    if not served:
        yield "the registry is empty: nobody can call anything"
    cached: list[str] = []
    for object_id, candidate in sorted(served.items(), key=lambda item: item[0]):
        match candidate.document:
            case ScenarioDocument(spec=scenario):
                cached += [object_id.name] if scenario.cache.mode != "none" else []
            case _:
                pass
    if cached:
        yield f"the cache of scenarios {_names(cached)} is accepted but has no effect in this version"


def _names(names: Iterable[str]) -> str:
    shown = list(names)
    more = len(shown) - _NAMES_MAX
    return ", ".join(shown[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
