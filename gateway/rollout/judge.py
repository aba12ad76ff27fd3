"""Whether a canary breaks its bounds: pure.

What is compared with a bound is not the share that was seen but the least that the true share can well be: the lower
end of its Wilson score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, p. 212). So a canary within its bounds is
not withdrawn for bad luck in few calls, and one far beyond them is as soon as there are enough. The 95th percentile of
first tokens is above its bound where more than 5 % of them came later.

Judged are the newest pane and every row of panes from it backwards, so that a canary that went bad a moment ago is not
covered by what it did before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from gateway.model import Abort
from gateway.rollout.evidence import FAILURES, REQUESTS, SLOW, STREAMS, first_token_s, together

Z: Final = 3.29
"""Standard deviations of the interval: one chance in 2000 that a share at its bound looks above it."""

_LATE: Final = 0.05  # of first tokens may be later than their 95th percentile


def least_share(hits: int, count: int) -> float:
    """The least that the true share of hits can well be; 0 without any."""
    if not hits:
        return 0.0
    share, square = hits / count, Z * Z
    spread = Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return (share + square / (2 * count) - spread) / (1 + square / count)


def judge(abort: Abort, panes: Sequence[Mapping[str, int]]) -> str:
    """Why the canary is to be withdrawn; empty where it is not. ``panes`` come newest first."""
    for counts in accumulate(panes, lambda so_far, pane: together((so_far, pane))):
        reason = _too_many_failures(abort, counts) or _too_slow(abort, counts)
        if reason:
            return reason
    return ""


def _too_many_failures(abort: Abort, counts: Mapping[str, int]) -> str:
    requests, failures = counts.get(REQUESTS, 0), counts.get(FAILURES, 0)
    bound = abort.error_ratio
    if bound is None or requests < abort.min_requests or least_share(failures, requests) <= bound:
        return ""
    return f"{failures} of {requests} calls failed, which is more than the {bound:.2%} of errorRatio"


def _too_slow(abort: Abort, counts: Mapping[str, int]) -> str:
    streams, slow = counts.get(STREAMS, 0), counts.get(SLOW, 0)
    bound = abort.first_token_p95_s
    if bound is None or streams < abort.min_requests or least_share(slow, streams) <= _LATE:
        return ""
    p95 = first_token_s(counts, 1 - _LATE)
    about = "beyond the largest bucket" if p95 is None else f"about {p95:g} s"
    return f"{slow} of {streams} first tokens came after the {bound:g} s of firstTokenP95; their p95 is {about}"
