"""Which fields a request to a scenario may have, and what they may hold; pure.

Invariant: a denied field is refused in every spelling that a server might take for it, and an allowed one passes in its
own spelling only. A null says nothing and is let through.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.dialects.openai.sampling import fault_of
from gateway.errors import InvalidRequest
from gateway.model import Native, Parameters
from gateway.scenarios.variables import is_null

_SHOWN_CHARS_MAX = 256


def check_fields(parameters: Parameters, fields: Mapping[str, msgspec.Raw | bytes]) -> None:
    """Raises InvalidRequest naming the first field that the scenario does not take, or whose value it cannot be."""
    allow, deny = parameters.allow, parameters.deny
    for name, raw in fields.items():
        refused = (allow is not None and name not in allow) or (deny and name.casefold() in deny)
        if refused and not is_null(raw):
            shown = name[:_SHOWN_CHARS_MAX]
            raise _not_taken(shown)
        if parameters.check_sampling:
            expected = fault_of(name, raw)
            if expected is not None:
                raise InvalidRequest(f"`{name}` must be {expected}.", param=name)


def check_native(parameters: Parameters, native: Native) -> None:
    """The same for a request in another dialect: by its own names too, and for what is beyond those of a chat.

    Raises InvalidRequest.
    """
    for name in native.fields:
        if name.casefold() in parameters.deny:
            raise _not_taken(name[:_SHOWN_CHARS_MAX])
    if parameters.allow is not None:
        for place in native.beyond:
            if place.partition(".")[0] not in parameters.allow:
                raise _not_taken(place[:_SHOWN_CHARS_MAX])


def _not_taken(shown: str) -> InvalidRequest:
    return InvalidRequest(f"The field `{shown}` is not supported by this model.", code="unsupported_field", param=shown)
