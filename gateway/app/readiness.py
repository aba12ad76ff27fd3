"""Whether this worker should get traffic, and why not."""

from __future__ import annotations

from collections.abc import Callable


class Readiness:
    """What ``/readyz`` tells: ready once everything is loaded and listening, until a drain begins."""

    def __init__(
        self,
        registry_loaded: Callable[[], bool],
        keys_known: Callable[[], bool] = lambda: True,
        waiting_for: Callable[[], list[str]] = list,
    ) -> None:
        self._registry_loaded = registry_loaded
        self._waiting_for = waiting_for
        self._keys_known = keys_known
        self.listening = False
        self.draining = False

    @property
    def informed(self) -> bool:
        """Whether everything was read that answers need."""
        return self._registry_loaded() and not self._waiting_for()

    def reasons(self) -> list[str]:
        """Why no traffic should come; empty when it should."""
        reasons = []
        if self.draining:
            reasons.append("draining")
        elif not self.listening:
            reasons.append("starting")
        waiting = ", ".join(self._waiting_for())
        if not self._registry_loaded():
            reasons.append(f"registry not loaded: waiting for {waiting}" if waiting else "registry not loaded")
        elif waiting:
            reasons.append(f"waiting for {waiting}")
        if not self._keys_known():
            reasons.append("keys not known: Redis has not answered yet")
        return reasons
