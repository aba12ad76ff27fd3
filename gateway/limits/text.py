"""What a caller reads of its limits: header fields and the texts of refusals; pure.

``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` are those of the OpenAI API
(https://platform.openai.com/docs/guides/rate-limits), durations included: ``120ms``, ``6m0s``.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import BudgetExceeded, GatewayError, LimitsUnavailable, RateLimited
from gateway.limits.windows import is_budget
from gateway.model import Limit

Headers = tuple[tuple[bytes, bytes], ...]

DEGRADED: Final[Headers] = ((b"x-llm-gateway-degraded", b"limits"),)
DEGRADED_LINES: Final = b"x-llm-gateway-degraded: limits\r\n"
UNAVAILABLE_RETRY_S: Final = 5.0
"""When limits are back at the latest once Redis is: the breaker closes within it."""

_UNITS: Final = {
    "requests": "requests",
    "tokens": "tokens",
    "inputTokens": "input tokens",
    "outputTokens": "output tokens",
    "cost": "cost",
    "concurrency": "concurrent requests",
}
_FIELDS: Final = {
    unit: tuple(b"x-ratelimit-%b-%b" % (what, unit.encode()) for what in (b"limit", b"remaining", b"reset"))
    for unit in ("requests", "tokens")
}


def duration(milliseconds: int) -> str:
    """A duration as the OpenAI API writes it; >= 0."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f"{seconds}.{rest:03d}".rstrip("0") if rest else str(seconds)
    if hours:
        return f"{hours}h{minutes}m{tail}s"
    return f"{minutes}m{tail}s" if minutes else f"{tail}s"


def level_headers(unit: str, limit: int, remaining: int, reset_ms: int) -> Headers:
    """The three fields of one unit, ``requests`` or ``tokens``; each number >= 0."""
    names = _FIELDS[unit]
    return (
        (names[0], str(limit).encode()),
        (names[1], str(remaining).encode()),
        (names[2], duration(reset_ms).encode()),
    )


def level_head(unit: str, limit: int) -> str:
    """The same three fields as header lines, up to what remains: what is the same in every answer."""
    return f"x-ratelimit-limit-{unit}: {limit}\r\nx-ratelimit-remaining-{unit}: "


def refusal(limit: Limit, retry_after_s: float, headers: Headers = ()) -> GatewayError:
    """What a caller is told whom ``limit`` does not admit."""
    what = _UNITS[limit.unit]
    error: GatewayError
    if is_budget(limit):
        error = BudgetExceeded(
            f"The budget `{limit.name}` ({what} per {limit.per}) has no room for this request.",
            retry_after_s=retry_after_s,
        )
    elif limit.unit == "concurrency":
        error = RateLimited(
            f"The limit `{limit.name}` of {limit.amount} {what} is reached.", retry_after_s=retry_after_s
        )
    else:
        error = RateLimited(
            f"The limit `{limit.name}` of {limit.amount} {what} per {limit.per} is reached."
            f" Try again in {duration(max(round(retry_after_s * 1000), 1))}.",
            retry_after_s=retry_after_s,
        )
    error.detail = f"limit {limit.name}"
    error.headers = headers
    return error


def unavailable(limit: Limit) -> LimitsUnavailable:
    """What a caller is told while a limit that closes cannot be checked."""
    error = LimitsUnavailable(
        "The limits of this request cannot be checked just now.",
        detail=f"limit {limit.name} closes without Redis",
        retry_after_s=UNAVAILABLE_RETRY_S,
    )
    error.headers = DEGRADED
    return error
