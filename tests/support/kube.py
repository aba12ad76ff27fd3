"""A simulated Kubernetes API server, for what a test cannot have: a real one.

Built on kmock's server, which parses requests, knows the discovery documents and renders errors as Kubernetes does. Its
own store has no versions, pages, bookmarks, selectors, subresources or server-side apply, so what needs those is
scripted here, after https://kubernetes.io/docs/reference/using-api/api-concepts/:

    with KubeServer() as kube:
        kube.put({"apiVersion": "llmgateway.dev/v1alpha1", "kind": "Backend", "metadata": {...}, "spec": {...}})
        kube.fail(403, plural="backends")

Runs in a thread of its own; every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp.test_utils
import aiohttp.web
import kmock

from tests.support.kube_api import Api
from tests.support.kube_values import (
    GROUP_VERSIONS,
    OURS,
    PLURALS,
    Fault,
    Key,
    Object,
    Seen,
    Watcher,
    line,
    selected,
    status,
    without_version,
)

T = TypeVar("T")
_TURNS = 10  # of the event loop, in which transports that were aborted are closed


class KubeServer:
    """One API server on a free port of 127.0.0.1; a context manager. ``tls`` makes it speak TLS."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, token: str | None = None, version: int = 1000) -> None:
        self._tls = tls
        self.token = token
        self._version = version
        self._oldest = version
        self._store: dict[str, dict[Key, Object]] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._watchers: list[Watcher] = []
        self._faults: list[Fault] = []
        self._applied: dict[tuple[str, Key, str], Object] = {}
        self._bodies: dict[str, Any] = {}
        self._transports: set[asyncio.Transport] = set()
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self.requests: list[Seen] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the API server did not start"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Stop it for good: connections are cut and its port is free."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)
            self._loop.close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        handler = Api(self)

        class Server(aiohttp.test_utils.RawTestServer):
            async def start_server(_, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any) -> None:  # noqa: N805
                await super().start_server(loop, ssl=self._tls, **kwargs)

            async def _make_runner(_, debug: bool = False, **kwargs: Any) -> aiohttp.web.ServerRunner:  # noqa: N805
                server = aiohttp.web.Server(_._handler, debug=debug, access_log=None, **kwargs)
                return aiohttp.web.ServerRunner(server, shutdown_timeout=0.1)

        async with handler, kmock.Server(handler, port=self.port or None, server_cls=Server) as server:
            self.port = server.port
            self._ready.set()
            await self._stop.wait()
            self._end_watches()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for transport in self._transports:
            with contextlib.suppress(AttributeError):  # of TLS, one that has ended by itself
                transport.abort()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _do(self, action: Callable[[], T]) -> T:
        async def run() -> T:
            return action()

        coroutine: Coroutine[Any, Any, T] = run()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    # -- objects -------------------------------------------------------------------------------------------------

    def put(self, item: Object, namespace: str = "registry") -> Object:
        """Create an object or replace it, as ``kubectl apply`` would; return it as it is now."""
        plural = PLURALS[item["kind"]]
        return self._do(lambda: self._write(plural, namespace, copy.deepcopy(item)))

    def put_all(self, items: list[Object], namespace: str = "registry") -> None:
        """Create many at once."""
        self._do(lambda: [self._write(PLURALS[each["kind"]], namespace, copy.deepcopy(each)) for each in items])

    def delete(self, kind: str, name: str, namespace: str = "registry") -> None:
        """Delete an object."""
        self._do(lambda: self._delete(PLURALS[kind], (namespace, name)))

    def get(self, kind: str, name: str, namespace: str = "registry") -> Object | None:
        """One object as it is now."""
        return self._do(lambda: copy.deepcopy(self._store.get(PLURALS[kind], {}).get((namespace, name))))

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        return self._do(lambda: copy.deepcopy(list(self._store.get(PLURALS[kind], {}).values())))

    def condition(self, kind: str, name: str, condition: str) -> Object:
        """One condition of an object's status; AssertionError where there is none yet."""
        item = self.get(kind, name) or {}
        conditions = item.get("status", {}).get("conditions", [])
        found: Object | None = next((each for each in conditions if each["type"] == condition), None)
        assert found is not None, f"{kind}/{name} has no condition {condition}"
        return found

    def serve(self, path: str, body: Any) -> None:
        """Answer GETs of a path with a body."""
        self._bodies[path] = body

    # -- faults --------------------------------------------------------------------------------------------------

    def fail(
        self,
        status: int,
        *,
        plural: str | None = None,
        action: str | None = None,
        times: int | None = None,
        reason: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer requests with a status from now on, or so often; ``action`` is kmock's, such as list or watch."""
        fault = Fault(status, plural, action, times, reason, False, headers or {})
        self._do(lambda: self._faults.append(fault))

    def hang(self, *, plural: str | None = None, action: str | None = None) -> None:
        """Take requests and never answer."""
        self._do(lambda: self._faults.append(Fault(0, plural, action, None, "", True, {})))

    def mend(self) -> None:
        """End every fault."""
        self._do(self._faults.clear)

    def stall_watches(self) -> None:
        """Let the watches that are open say nothing more, and stay open."""

        def stall() -> None:
            for watcher in self._watchers:
                watcher.stalled = True

        self._do(stall)

    def end_watches(self) -> None:
        """End every open watch, as the server does after its time."""
        self._do(self._end_watches)

    def cut_watches(self) -> None:
        """Break the connection of every open watch."""
        self._do(self._cut)

    def expire(self, *, tell: bool = False) -> None:
        """Forget the history, so that old versions are gone; ``tell`` also ends open watches with an error of 410."""

        def forget() -> None:
            self._version += 1
            self._oldest = self._version
            self._history.clear()
            if tell:
                error = {"type": "ERROR", "object": status(410, "Expired", "too old resource version")}
                for watcher in self._watchers:
                    watcher.queue.put_nowait(line(error))
                    watcher.queue.put_nowait(None)

        self._do(forget)

    def bookmark(self) -> None:
        """Send a bookmark to every open watch."""

        def send() -> None:
            for each in self._watchers:
                api_version = GROUP_VERSIONS.get(each.plural, OURS)
                item = {"apiVersion": api_version, "metadata": {"resourceVersion": str(self._version)}}
                each.queue.put_nowait(line({"type": "BOOKMARK", "object": item}))

        self._do(send)

    def watching(self, plural: str) -> int:
        """How many watches of a plural are open."""
        return self._do(lambda: sum(1 for each in self._watchers if each.plural == plural and not each.stalled))

    def asked(self, action: str, plural: str) -> int:
        """How many requests of this action there were."""
        return sum(1 for each in list(self.requests) if each.action == action and each.plural == plural)

    # -- inside its loop -----------------------------------------------------------------------------------------

    def _end_watches(self) -> None:
        for each in self._watchers:
            each.queue.put_nowait(None)

    def _cut(self) -> None:
        for each in self._watchers:
            each.queue.put_nowait(b"CUT")

    def _next(self) -> int:
        self._version += 1
        return self._version

    def _write(self, plural: str, namespace: str, item: Object, *, status: bool = False) -> Object:
        """Store an object; ``status`` only its status, otherwise everything else."""
        metadata = item.setdefault("metadata", {})
        key = (namespace, metadata["name"])
        before = self._store.setdefault(plural, {}).get(key)
        if before is not None:
            if status:
                item = {**before, "status": item.get("status", {})}
            else:
                kept = {name: before["metadata"][name] for name in ("uid", "creationTimestamp", "generation")}
                item = {**item, "metadata": {**metadata, **kept}}
                if "status" in before:
                    item["status"] = before["status"]
                item["metadata"]["generation"] += item.get("spec") != before.get("spec")
            same = without_version(item) == without_version(before)
            if same:
                return before
        else:
            metadata.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            metadata |= {"uid": str(uuid.uuid4()), "generation": 1, "namespace": namespace}
        item["metadata"] = {**item["metadata"], "namespace": namespace, "resourceVersion": str(self._next())}
        self._store[plural][key] = item
        self._tell(plural, "ADDED" if before is None else "MODIFIED", item, before)
        return item

    def _delete(self, plural: str, key: Key) -> Object | None:
        item = self._store.get(plural, {}).pop(key, None)
        if item is not None:
            item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._next())}}
            self._tell(plural, "DELETED", item, item)
        return item

    def _tell(self, plural: str, kind: str, item: Object, before: Object | None) -> None:
        self._history.append((self._version, plural, kind, item))
        for each in self._watchers:
            if each.plural == plural and each.namespace in (None, item["metadata"]["namespace"]):
                self._tell_one(each, kind, item, before)

    def _tell_one(self, watcher: Watcher, kind: str, item: Object, before: Object | None) -> None:
        fits = selected(item, watcher.selector)
        did = before is not None and selected(before, watcher.selector)
        if not fits and not did:
            return
        shown = "DELETED" if not fits else ("ADDED" if kind == "MODIFIED" and not did else kind)
        watcher.queue.put_nowait(line({"type": shown, "object": item}))


def kubeconfig(url: str, *, authority: str | None = None, token: str = "", namespace: str = "default") -> Object:
    """A kubeconfig document for a server; ``authority`` is the path of its CA."""
    cluster: Object = {"server": url}
    if authority is not None:
        cluster["certificate-authority"] = authority
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }
