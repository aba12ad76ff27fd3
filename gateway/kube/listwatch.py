"""Keeps one kind of objects current: list, then watch, in a guarded thread of its own.

Invariants:
- ``objects`` is None until one list was complete; a list that failed, was forbidden or was cut changes nothing.
- What was known stays known through every outage; ``heard_at`` says how old it may be.
- The thread never ends by itself. While nothing happens it waits in one read and costs nothing.
- A failure is logged once until another one happens, and told by ``failure`` for as long as it lasts.

The protocol is that of https://kubernetes.io/docs/reference/using-api/api-concepts/ (efficient detection of changes):
a list in pages, a watch from its version on, bookmarks that move the version on, and a fresh list after 410.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from gateway.clock import monotonic
from gateway.errors import KubernetesFailure
from gateway.model import Frozen

_log = logging.getLogger("gateway.kube")

Object = dict[str, Any]
"""One Kubernetes object as JSON values; never changed by who reads it."""

GONE: Final = 410
BACKOFF_MIN_S: Final = 0.5
"""The first pause after a failure, half of it random; it doubles with each further one."""
ENDED_AT_ONCE_S: Final = 0.1
"""A server that ends a watch so soon is one that ends every watch, and is not asked again without a pause."""

_LISTS_CUT_MAX: Final = 3
"""How often in a row a list in pages is begun anew, because its version has expired, before that is a failure."""


class Resource(Frozen, frozen=True):
    """What is watched: the path of a collection, such as ``/api/v1/namespaces/models/secrets``, and a selector."""

    path: str
    label_selector: str = ""

    @property
    def name(self) -> str:
        """The plural at the end of the path, for logs."""
        return self.path.rpartition("/")[2]


class WatchOptions(Frozen, frozen=True):
    """Bounds of one loop; times in seconds (> 0).

    ``watch_s`` is the shortest life of one watch, which ends at random up to half later, so that replicas do not all
    come back at once. ``idle_s`` is the longest silence: API servers send a bookmark about every minute.
    """

    watch_s: float = 300.0
    idle_s: float = 90.0
    backoff_max_s: float = 30.0
    page: int = 500
    objects_max: int = 20_000


class Stream(Protocol):
    """The lines of a watch."""

    def __iter__(self) -> Iterator[Sequence[bytes]]:
        """Yield the lines of each piece that arrives. Raises KubernetesFailure."""

    def close(self) -> None:
        """End it, from any thread."""


class Client(Protocol):
    """What this needs of the client."""

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return what is at a path. Raises KubernetesFailure."""

    def watch(self, path: str, query: Mapping[str, str], idle_s: float) -> Stream:
        """Open a watch. Raises KubernetesFailure."""


Objects = Mapping[tuple[str, str], Object]
"""Objects by namespace and name. A mapping that was handed out is never changed."""


class _Event(msgspec.Struct):
    type: str
    object: Object


class _Expired(Exception):
    """The version to go on from is not known to the server any more: a fresh list is needed."""


class ListWatch:
    """One loop. ``on_change`` is called in its thread with all objects, after the first list and after each change.

    ``prune`` makes of each object what is worth keeping; None for an object that is not wanted.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        on_change: Callable[[Objects], None],
        options: WatchOptions,
        prune: Callable[[Object], Object | None] | None = None,
    ) -> None:
        self.resource = resource
        self.objects: Objects | None = None
        self.heard_at: float | None = None  # monotonic seconds of the last sign that ``objects`` are current
        self.failure: KubernetesFailure | None = None  # what keeps them from being so now
        self._client = client
        self._on_change = on_change
        self._options = options
        self._prune = prune or without_managed_fields
        self._version: str | None = None  # to watch from; None: a list is needed
        self._kept: dict[tuple[str, str], Object] = {}
        self._failures = 0
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread that ends with the process or at ``stop``."""
        self._thread = threading.Thread(target=self._run, name=f"watch {self.resource.name}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 0.0) -> None:
        """End the loop, and wait at most so long for its thread."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        if self._thread is not None and timeout_s > 0:
            self._thread.join(timeout_s)

    # -- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause_s = self.step()
            if pause_s > 0:
                self._stopping.wait(pause_s)

    def step(self) -> float:
        """List where that is needed, then watch until that ends; return how long to pause, in seconds. Never raises."""
        try:
            if self._version is None:
                self._version = self._list(self._options.page)
            self._watch(self._version)
        except _Expired:
            self._version = None
            return self._later() if self._failures else self._note_expiry()
        except KubernetesFailure as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001  # whatever kills one round, the loop must live
            if not self._stopping.is_set():
                _log.exception("the watch of %s failed", self.resource.name)
            self._version = None
            return self._failed(KubernetesFailure(f"{self.resource.path}: {type(error).__name__}"))
        return 0.0

    def _note_expiry(self) -> float:
        self._failures = 1  # a server whose every list is expired at once is not asked without a pause
        return 0.0

    def _failed(self, error: KubernetesFailure) -> float:
        if self._stopping.is_set():
            return 0.0
        if error.status is not None and 400 <= error.status < 500 and error.status != 429:
            self._version = None  # it is not the moment that is wrong: begin from the start when it is mended
        known = self.failure
        self.failure = error
        if known is None or known.text != error.text:
            _log.warning("%s are not up to date: %s", self.resource.name, error.text)
        return max(self._later(), error.retry_after_s or 0.0)

    def _later(self) -> float:
        """Return a pause that doubles with each failure in a row, half of it random."""
        longest = min(self._options.backoff_max_s, BACKOFF_MIN_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # a pause, no secret

    def _heard(self) -> None:
        """Note that what is known is what the server has."""
        self.heard_at = monotonic()
        if self.failure is not None:
            _log.info("%s are up to date again", self.resource.name)
            self.failure = None

    # -- list ----------------------------------------------------------------------------------------------------

    def _list(self, page: int) -> str:
        """Read the whole collection, adopt it, and return its version."""
        for _ in range(_LISTS_CUT_MAX):
            try:
                fresh, version = self._pages(page)
            except KubernetesFailure as error:
                if error.status != GONE:
                    raise
                continue  # a list in pages outlived its version
            changed = self.objects is None or fresh != self._kept
            self._kept = fresh
            self._heard()
            if changed:
                self._publish()
            return version
        raise KubernetesFailure(f"GET {self.resource.path}: the list expires before it is complete")

    def _pages(self, page: int) -> tuple[dict[tuple[str, str], Object], str]:
        found: dict[tuple[str, str], Object] = {}
        query = self._query(limit=str(page))
        while True:
            answer = self._client.get(self.resource.path, query)
            items, metadata = _list_parts(answer, self.resource.path)
            self._add(found, items)
            if not (following := metadata.get("continue")):
                return found, str(metadata.get("resourceVersion", ""))
            query["continue"] = str(following)

    def _add(self, found: dict[tuple[str, str], Object], items: Iterable[Object]) -> None:
        for item in items:
            kept = self._prune(item)
            if kept is not None:
                found[_key(item)] = kept
        if len(found) > self._options.objects_max:
            raise KubernetesFailure(f"GET {self.resource.path}: there are more than {self._options.objects_max}")

    def _query(self, **extra: str) -> dict[str, str]:
        selector = {"labelSelector": self.resource.label_selector} if self.resource.label_selector else {}
        return selector | extra

    # -- watch ---------------------------------------------------------------------------------------------------

    def _watch(self, version: str) -> None:
        """Follow changes until the server ends the watch. Raises _Expired, KubernetesFailure."""
        options = self._options
        life_s = int(options.watch_s * random.uniform(1.0, 1.5)) or 1  # noqa: S311  # a time, no secret
        query = self._query(
            watch="true", resourceVersion=version, allowWatchBookmarks="true", timeoutSeconds=str(life_s)
        )
        try:
            stream = self._client.watch(self.resource.path, query, options.idle_s)
        except KubernetesFailure as error:
            if error.status == GONE:
                raise _Expired from None
            raise
        self._stream = stream
        if self._stopping.is_set():  # maybe since before there was a stream to close
            stream.close()
            return
        began = monotonic()
        try:
            self._heard()
            for lines in stream:
                self._take(lines)
                self._heard()
                self._failures = 0
        except KubernetesFailure as error:
            if not error.silent:
                raise
            _log.info("no word of %s for %g s: watching anew", self.resource.name, options.idle_s)
            return
        finally:
            self._stream = None
            stream.close()
        if monotonic() - began < ENDED_AT_ONCE_S:
            raise KubernetesFailure(f"WATCH {self.resource.path}: ended at once")
        self._failures = 0

    def _take(self, lines: Iterable[bytes]) -> None:
        changed = False
        fresh = dict(self._kept)
        try:
            for line in lines:
                changed |= self._apply(msgspec.json.decode(line, type=_Event), fresh)
        finally:
            if changed:
                self._kept = fresh
                self._publish()

    def _apply(self, event: _Event, fresh: dict[tuple[str, str], Object]) -> bool:
        """Apply one event; tell whether it changed anything."""
        if event.type == "ERROR":
            code = event.object.get("code")
            if code == GONE:
                raise _Expired
            self._version = None
            said = str(event.object.get("message"))[:300]
            raise KubernetesFailure(f"WATCH {self.resource.path}: {code} {said}")
        key = _key(event.object)
        self._version = str(event.object["metadata"]["resourceVersion"])
        if event.type == "BOOKMARK":
            return False
        kept = None if event.type == "DELETED" else self._prune(event.object)
        before = fresh.pop(key, None)
        if kept is None:
            return before is not None
        fresh[key] = kept
        if len(fresh) > self._options.objects_max:
            self._version = None
            raise KubernetesFailure(f"WATCH {self.resource.path}: there are more than {self._options.objects_max}")
        return before != kept

    def _publish(self) -> None:
        self.objects = MappingProxyType(self._kept)
        self._on_change(self.objects)


def without_managed_fields(item: Object) -> Object:
    """Drop what only server-side apply needs; it is often larger than the rest."""
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    return {**item, "metadata": metadata}


def _key(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata.get("name", "")


def _list_parts(answer: Any, path: str) -> tuple[list[Object], Object]:
    if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
        raise KubernetesFailure(f"GET {path}: the answer is no list")
    kind = str(answer.get("kind", "")).removesuffix("List")
    items: list[Object] = [
        {"kind": kind, "apiVersion": answer.get("apiVersion", ""), **each} for each in answer["items"]
    ]
    return items, answer.get("metadata", {})
