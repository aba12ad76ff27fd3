"""Which fields a request to a scenario may have, and what they may hold; pure.

Invariant: a denied field is refused in every spelling that a server might take for it, and an allowed one passes in its
own spelling only. A null says nothing and is let through.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.dialects.openai.sampling import fault_of
from gateway.errors import InvalidRequest
from gateway.model import Parameters
from gateway.scenarios.variables import is_null

_SHOWN_CHARS_MAX = 256


def check_fields(parameters: Parameters, fields: Mapping[str, msgspec.Raw | bytes]) -> None:
    """Raises InvalidRequest naming the first field that the scenario does not take, or whose value it cannot be."""
    allow, deny = parameters.allow, parameters.deny
    for name, raw in fields.items():
        refused = (allow is not None and name not in allow) or (deny and name.casefold() in deny)
        if refused and not is_null(raw):
            shown = name[:_SHOWN_CHARS_MAX]
            raise InvalidRequest(
                f"The field `{shown}` is not supported by this model.", code="unsupported_field", param=shown
            )
        if parameters.check_sampling:
            expected = fault_of(name, raw)
            if expected is not None:
                raise InvalidRequest(f"`{name}` must be {expected}.", param=name)
