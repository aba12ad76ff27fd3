"""What is said of each resource in its status: the conditions Accepted and Ready. Pure.

Accepted tells whether the resource as it is written now was taken up whole; its message names every field that was not.
Ready tells whether some version of it serves. Both follow the conventions of the API
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md): a list
with the type as key, a reason in one word, the generation that was looked at, and a time that moves with the status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from gateway.model import Problem
from gateway.registry.load import LoadResult
from gateway.registry.parse import ObjectId
from gateway.registry.resources import Parsed

MESSAGE_CHARS_MAX: Final = 4096
"""Of a message; the API server takes 32,768."""

Condition = dict[str, Any]


class Wanted(NamedTuple):
    """A resource whose status differs from what should be said of it."""

    id: ObjectId
    status: dict[str, Any]


class _Verdict(NamedTuple):
    accepted: tuple[bool, str, str]  # whether, reason, message
    ready: tuple[bool, str, str]


def wanted_statuses(parsed: Mapping[ObjectId, Parsed], result: LoadResult, now: float) -> Iterator[Wanted]:
    """Yield the resources whose status has to be written; ``now`` is Unix seconds."""
    problems: dict[str, list[Problem]] = {}
    for problem in result.problems:
        problems.setdefault(problem.object, []).append(problem)
    for object_id, item in parsed.items():
        metadata, status = item.resource["metadata"], item.resource.get("status")
        verdict = _verdict(object_id, item, result, problems.get(str(object_id), []))
        before = status if isinstance(status, Mapping) else {}
        fresh = _status(verdict, metadata.get("generation"), before, now)
        if fresh != before:
            yield Wanted(object_id, fresh)


def _verdict(object_id: ObjectId, item: Parsed, result: LoadResult, problems: Sequence[Problem]) -> _Verdict:
    live = result.state.live.get(object_id)
    current = live is not None and not live.stale
    if not problems:
        accepted = (True, "Accepted", "") if current else (False, "Pending", "")
    else:
        invalid = item.candidate.document is None
        reason = "PartlyAccepted" if current else "Invalid" if invalid else "Unresolved"
        accepted = (False, reason, _message(problems))
    if live is None:
        return _Verdict(accepted, (False, "NotServing", "No version of it serves."))
    if live.stale:
        return _Verdict(accepted, (True, "LastGoodVersion", "The last version that was accepted serves."))
    return _Verdict(accepted, (True, "Serving", ""))


def _message(problems: Sequence[Problem]) -> str:
    """Say what is wrong, field by field."""
    texts = [f"{problem.field}: {problem.reason}" if problem.field else problem.reason for problem in problems]
    text = "; ".join(texts)
    return text if len(text) <= MESSAGE_CHARS_MAX else f"{text[: MESSAGE_CHARS_MAX - 4]} ..."


def _status(verdict: _Verdict, generation: object, before: Mapping[str, Any], now: float) -> dict[str, Any]:
    last = {each.get("type"): each for each in _conditions(before)}
    conditions = [
        _condition("Accepted", verdict.accepted, generation, last.get("Accepted"), now),
        _condition("Ready", verdict.ready, generation, last.get("Ready"), now),
    ]
    others = [dict(each) for kind, each in last.items() if kind not in ("Accepted", "Ready")]
    status: dict[str, Any] = {**before, "conditions": [*conditions, *others]}
    return status if generation is None else {**status, "observedGeneration": generation}


def _conditions(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = status.get("conditions")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _condition(
    kind: str, said: tuple[bool, str, str], generation: object, last: Mapping[str, Any] | None, now: float
) -> Condition:
    status, reason, message = "True" if said[0] else "False", said[1], said[2]
    moment = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if last is not None and last.get("status") == status and last.get("lastTransitionTime"):
        moment = last["lastTransitionTime"]
    condition: Condition = {"type": kind, "status": status, "reason": reason, "message": message}
    condition["lastTransitionTime"] = moment
    return condition if generation is None else condition | {"observedGeneration": generation}
