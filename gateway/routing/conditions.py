"""Which targets of a scenario take a request: pure. A scenario without conditions never comes here.

The targets whose condition holds are the only candidates; where none holds, those without a condition are. That a
candidate is disabled does not widen the choice: a rule that sends a tenant to one place never sends it to another.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.dialects.openai.images import find_images
from gateway.errors import InvalidRequest
from gateway.model import ChatRequest, Condition, Frozen, Principal, Scenario, Target

_TOOL_FIELDS = ("tools", "functions")  # the second is the older name of the first
_NOTHING = frozenset({b"null", b"[]"})


class Asking(Frozen, frozen=True):
    """Who asks for what: all that a condition may look at. ``headers`` has those only that the operator lists."""

    principal: Principal
    request: ChatRequest
    headers: Mapping[str, str] = {}


def candidates(scenario: Scenario, asking: Asking) -> tuple[Target, ...]:
    """The targets that may take the request; none where the fallbacks are to take it.

    Raises InvalidRequest (unmatched_request) where the scenario refuses what none of its targets is for.
    """
    matching = tuple(each for each in scenario.targets if each.when is not None and holds(each.when, asking))
    if matching:
        return matching
    others = tuple(each for each in scenario.targets if each.when is None)
    if not others and scenario.unmatched != "fallbacks":
        raise InvalidRequest("This model does not take requests like this one.", code="unmatched_request")
    return others


def holds(condition: Condition, asking: Asking) -> bool:
    """Whether the condition holds; what is cheap to find out is asked first."""
    request = asking.request
    return (
        (condition.tenants is None or asking.principal.tenant.name in condition.tenants)
        and (condition.keys is None or asking.principal.key.name in condition.keys)
        and condition.min_bytes <= request.body_bytes
        and (condition.max_bytes is None or request.body_bytes <= condition.max_bytes)
        and all(asking.headers.get(name) in allowed for name, allowed in condition.headers)
        and (condition.tools is None or condition.tools == offers_tools(request))
        and (condition.images is None or condition.images == has_images(request))
    )


def offers_tools(request: ChatRequest) -> bool:
    """Whether the request offers the model anything to call."""
    return any(name in request.fields and not _is_nothing(request.fields[name]) for name in _TOOL_FIELDS)


def has_images(request: ChatRequest) -> bool:
    """Whether there may be an image in the messages; see ``dialects.openai.images``."""
    return find_images(bytes(request.fields.get("messages", b"")))[0] > 0


def _is_nothing(raw: msgspec.Raw | bytes) -> bool:
    return len(raw) <= 16 and b"".join(bytes(raw).split()) in _NOTHING
