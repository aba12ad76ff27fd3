"""Writes the status of resources, as the one leader among all processes, in a guarded thread.

Invariants:
- Only the leader writes, only what differs, and at most so many writes in a second as the settings allow.
- The thread waits for news and for the time to renew its lease, and does nothing else; it cannot die.
- A failed write is tried again with the next renewal; nothing waits for it.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import Any, Final, Protocol

from gateway.clock import monotonic, wall
from gateway.errors import KubernetesFailure
from gateway.registry.cluster import View
from gateway.registry.lease import RENEW_S, Lease
from gateway.registry.resources import PLURALS, collection
from gateway.registry.status import Wanted, wanted_statuses

_log = logging.getLogger("gateway.registry")

MERGE_PATCH: Final = "application/merge-patch+json"  # RFC 7396
GONE: Final = 404  # deleted meanwhile


class Client(Protocol):
    """What this needs of the client."""

    def get(self, path: str) -> Any:
        """Return what is at a path. Raises KubernetesFailure."""

    def request(
        self, method: str, path: str, query: Any = None, body: object = None, content_type: str = "application/json"
    ) -> Any:
        """Make one request. Raises KubernetesFailure."""


class StatusWriter:
    """The writer of one process; ``per_second`` (> 0) bounds its writes."""

    def __init__(self, client: Client, namespace: str, identity: str, per_second: int) -> None:
        self._client = client
        self._namespace = namespace
        self._pause_s = 1.0 / per_second
        self._lease = Lease(client, namespace, identity)
        self._view: View | None = None
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._renew_at = 0.0
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="registry status", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End, let the next one lead, and wait at most so long for that."""
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def show(self, view: View) -> None:
        """Write what this view says from now on; may be called from any thread."""
        self._view = view
        self._news.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._round()
            except KubernetesFailure as error:
                self._complain(error.text)
            except Exception:  # noqa: BLE001  # whatever kills one round, the thread must live
                _log.exception("the status of resources could not be written")
            self._news.wait(None if self._view is None else max(self._renew_at - monotonic(), self._pause_s))
            self._news.clear()
        try:
            self._lease.release()
        except KubernetesFailure as error:
            _log.info("the lease was not released and will expire: %s", error.text)

    def _round(self) -> None:
        """Renew the lease where it is time, and write what differs while this process leads."""
        view = self._view
        if view is None:  # nothing to say: somebody else may lead
            return
        if monotonic() >= self._renew_at:
            self._renew_at = monotonic() + RENEW_S * random.uniform(0.8, 1.0)  # noqa: S311  # a time, no secret
            led = self._lease.leads
            if self._lease.hold() and not led:
                _log.info("this process writes the status of resources")
        if not self._lease.leads:
            return
        failed = False
        for wanted in wanted_statuses(view.parsed, view.result, wall()):
            now = self._view
            if not self._lease.leads or now is None or now.result is not view.result:
                return  # the next round goes on, with the latest load
            failed |= not self._write(wanted)
            if self._stopping.wait(self._pause_s):
                return
            if monotonic() >= self._renew_at:
                self._renew_at = monotonic() + RENEW_S
                self._lease.hold()
        if not failed:
            self._told = ""

    def _write(self, wanted: Wanted) -> bool:
        path = f"{collection(PLURALS[wanted.id.kind], self._namespace)}/{wanted.id.name}/status"
        try:
            self._client.request("PATCH", path, None, {"status": wanted.status}, MERGE_PATCH)
        except KubernetesFailure as error:
            if error.status != GONE:
                self._complain(error.text)
                return False
        return True

    def _complain(self, text: str) -> None:
        if text != self._told:
            self._told = text
            _log.warning("the status of resources is not written: %s", text)
