"""The targets of a scenario and the conditions under which a request may go to them. See ``base`` for these models.

Whether a condition can hold at all is checked here as far as the document alone says it; ``compile`` checks it against
tenants and the headers that the operator lets conditions look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.registry.base import FieldErrors, HeaderValue, Label, Name, Node, repeated, text_type

LOWER_HEADER_NAME_PATTERN = r"^[!#$%&'*+.^_`|~0-9a-z-]{1,128}$"
_BODY_BYTES_MAX = 2**30

Unmatched = Literal["refuse", "fallbacks"]


def _lower_header_name(value: str) -> str:
    if not re.fullmatch(LOWER_HEADER_NAME_PATTERN[1:-1], value):
        raise ValueError("must be the name of a header in lower case")
    return value


LowerHeaderName = Annotated[str, AfterValidator(_lower_header_name), text_type(LOWER_HEADER_NAME_PATTERN)]


class RequestBytes(Node):
    """A range of sizes; both ends are included."""

    min: Annotated[int, Field(ge=0, le=_BODY_BYTES_MAX)] = Field(default=0, description="The smallest body.")
    max: Annotated[int, Field(ge=1, le=_BODY_BYTES_MAX)] | None = Field(
        default=None, description="The largest body. Default: no bound."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise FieldErrors(("max", "is below min: no request is of such a size"))
        if self.max is None and self.min == 0:
            raise FieldErrors(("", "says nothing: every request is of such a size"))
        return self


class When(Node):
    """What a request must be; all of it must hold."""

    tenants: Annotated[list[Label], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Tenants, of which the caller's is one; each must be allowed to use the scenario."
    )
    keys: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Names of keys, of which the caller's is one; that of every JWT is `oidc`."
    )
    request_bytes: RequestBytes | None = Field(default=None, description="Size of the request's body in bytes.")
    tools: bool | None = Field(default=None, description="Whether the request offers tools or functions.")
    images: bool | None = Field(default=None, description="Whether its messages hold images.")
    headers: Annotated[
        dict[LowerHeaderName, Annotated[list[HeaderValue], Field(min_length=1, max_length=64)]], Field(max_length=8)
    ] = Field(
        default_factory=dict,
        description="Headers by name in lower case, each with the values of which the request must have exactly one."
        " The operator lists the names in LLM_GATEWAY_ROUTING_HEADERS.",
    )

    @model_validator(mode="after")
    def _says_something_once(self) -> Self:
        errors = [*repeated("tenants", self.tenants or []), *repeated("keys", self.keys or [])]
        for name, allowed in self.headers.items():
            errors += [(f"headers.{name}", reason) for _, reason in repeated("", allowed)]
        rest = (self.tenants, self.keys, self.request_bytes, self.tools, self.images)
        if not self.headers and all(part is None for part in rest):
            errors.append(("", "says nothing; leave it out"))
        if errors:
            raise FieldErrors(*errors)
        return self


class Target(Node):
    """A backend with its share of the traffic."""

    backend: Name = Field(description="Name of the Backend.")
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=1, description="Its share among the weights of all candidates; 0 gets no calls."
    )
    when: When | None = Field(
        default=None,
        description="Which requests it is for. Targets whose condition holds are the only candidates of a request;"
        " those without one are for requests for which none holds.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.when is not None and self.weight == 0:
            raise FieldErrors(("weight", "must be above zero where there is a condition: it takes calls from others"))
        return self


def target_errors(targets: Sequence[Target], field: str = "targets") -> Iterator[tuple[str, str]]:
    """Yield (field, reason) for what is wrong with targets taken together."""
    seen: set[tuple[str, str]] = set()
    for index, target in enumerate(targets):
        condition = "" if target.when is None else _canonical(target.when)
        if (target.backend, condition) in seen:
            under = "" if target.when is None else " under this condition"
            yield f"{field}[{index}].backend", f"`{target.backend}` is listed twice{under}"
        seen.add((target.backend, condition))
    unconditional = [target for target in targets if target.when is None]
    if unconditional and not any(target.weight for target in unconditional):
        yield field, "must have a weight above zero" + ("" if len(unconditional) == len(targets) else " without `when`")


def _canonical(when: When) -> str:
    """The condition as text in which the order of lists does not matter."""
    lists = [sorted(when.tenants or ()), sorted(when.keys or ())]
    headers = sorted((name, sorted(allowed)) for name, allowed in when.headers.items())
    size = when.request_bytes
    return repr((lists, size and (size.min, size.max), when.tools, when.images, headers))


def unmatched_errors(
    unmatched: Unmatched | None, variants: Iterable[tuple[str, Sequence[Target], Sequence[str]]]
) -> Iterator[tuple[str, str]]:
    """Yield (field, reason) where ``unmatched`` is missing or has no effect.

    ``variants`` are the field of the targets, the targets and the fallbacks of the base and of each override.
    """
    needed = False
    for field, targets, fallbacks in variants:
        if any(target.when is None for target in targets):
            continue
        needed = True
        if unmatched is None:
            yield (
                field,
                "all have a condition: add one without, or say in spec.unmatched what becomes of other requests",
            )
        elif unmatched == "fallbacks" and not fallbacks:
            yield "fallbacks", f"are empty, and spec.unmatched sends there what no condition of the {field} holds for"
    if unmatched is not None and not needed:
        yield "unmatched", "has no effect: some targets have no condition and take every other request"
