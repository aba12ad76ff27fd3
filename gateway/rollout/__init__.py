"""Canaries and shadows: who gets a variant, what is known of it, when it is withdrawn, and copies of requests.

``choice`` says who gets the canary, ``evidence`` what its calls showed, ``judge`` whether that breaks its bounds;
``shared`` keeps the evidence of all replicas in Redis and ``local`` that of one process; ``rollouts`` does it all in
the background. ``shadow`` makes copies. Nothing that a request waits for happens here.
"""

from gateway.rollout.rollouts import RolloutOptions, Rollouts, RolloutState, RolloutStatus
from gateway.rollout.shadow import ShadowJob, ShadowOptions, Shadows, ShadowSkipped

__all__ = [
    "RolloutOptions",
    "RolloutState",
    "RolloutStatus",
    "Rollouts",
    "ShadowJob",
    "ShadowOptions",
    "ShadowSkipped",
    "Shadows",
]
