"""The requests of the simulated API server, answered from its store; see ``kube``."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
from typing import TYPE_CHECKING

import aiohttp.web
import kmock

from tests.support.kube_values import (
    GROUP_VERSIONS,
    OURS,
    PLURALS,
    Fault,
    Key,
    Object,
    Seen,
    Watcher,
    applied,
    conflict,
    merged,
    refused,
    selected,
)

if TYPE_CHECKING:
    from tests.support.kube import KubeServer


class Api(kmock.KubernetesScaffold):
    """The handler: requests that kmock has parsed, answered from the store."""

    def __init__(self, server: KubeServer) -> None:
        super().__init__()
        self._kube = server

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        kube = self._kube
        plural = "" if request.resource is None else str(request.resource.plural or "")
        seen = Seen(
            method=str(request.method.value).upper(),
            path=request.url.path,
            action="" if request.action is None else request.action.value.lower(),
            plural=plural,
            query=dict(request.params),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=json.loads(request.body) if request.body else None,
        )
        kube.requests.append(seen)
        assert request._raw_request is not None
        if request._raw_request.transport is not None:
            kube._transports.add(request._raw_request.transport)
        if kube.token is not None and seen.headers.get("authorization", "").lower() != f"bearer {kube.token}".lower():
            return refused(401, "Unauthorized", "Unauthorized")
        for fault in kube._faults:
            if fault.fits(seen) and (fault.times is None or fault.times > 0):
                return await _faulty(fault)
        if seen.path in kube._bodies:
            return aiohttp.web.json_response(kube._bodies[seen.path])
        if not plural or plural not in PLURALS.values():
            return await super()._handle(request)
        if seen.action == "watch":
            return await self._watch(request, seen)
        return self._answer(request, seen)

    def _answer(self, request: kmock.Request, seen: Seen) -> aiohttp.web.StreamResponse:
        kube, namespace, name = self._kube, request.namespace, request.name
        objects = kube._store.setdefault(seen.plural, {})
        if seen.action == "list":
            return self._list(seen, namespace)
        if seen.method == "POST":
            return self._create(seen, namespace or "")
        key = (namespace or "", name or "")
        if seen.method == "PATCH":
            return self._patch(request, seen, key)
        item = objects.get(key)
        if item is None:
            return refused(404, "NotFound", f'{seen.plural} "{name}" not found')
        if seen.method == "DELETE":
            if seen.query.get("dryRun") != "All":
                kube._delete(seen.plural, key)
            return aiohttp.web.json_response(item)
        if seen.method == "PUT":
            stale = conflict(seen.body, item)
            return stale or aiohttp.web.json_response(
                kube._write(seen.plural, key[0], seen.body, status=request.subresource == "status")
            )
        return aiohttp.web.json_response(item)

    def _list(self, seen: Seen, namespace: str | None) -> aiohttp.web.StreamResponse:
        kube = self._kube
        selector = seen.query.get("labelSelector", "")
        items = [
            item
            for (where, _), item in sorted(kube._store.get(seen.plural, {}).items())
            if namespace in (None, where) and selected(item, selector)
        ]
        start, version = 0, kube._version
        if token := seen.query.get("continue"):
            version, start = json.loads(base64.b64decode(token))
            if version < kube._oldest:
                return refused(410, "Expired", "The provided continue parameter is too old")
        limit = int(seen.query.get("limit", "0")) or len(items)
        metadata: Object = {"resourceVersion": str(version)}
        if start + limit < len(items):
            metadata["continue"] = base64.b64encode(json.dumps([version, start + limit]).encode()).decode()
        kind = next(kind for kind, plural in PLURALS.items() if plural == seen.plural)
        group_version = GROUP_VERSIONS.get(seen.plural, OURS)
        body = {"apiVersion": group_version, "kind": f"{kind}List", "metadata": metadata}
        return aiohttp.web.json_response({**body, "items": items[start : start + limit]})

    def _create(self, seen: Seen, namespace: str) -> aiohttp.web.StreamResponse:
        kube, name = self._kube, seen.body["metadata"]["name"]
        if (namespace, name) in kube._store.get(seen.plural, {}):
            return refused(409, "AlreadyExists", f'{seen.plural} "{name}" already exists')
        if seen.query.get("dryRun") == "All":
            return aiohttp.web.json_response(seen.body, status=201)
        return aiohttp.web.json_response(kube._write(seen.plural, namespace, seen.body), status=201)

    def _patch(self, request: kmock.Request, seen: Seen, key: Key) -> aiohttp.web.StreamResponse:
        kube, status = self._kube, request.subresource == "status"
        before = kube._store.get(seen.plural, {}).get(key)
        content_type = seen.headers["content-type"]
        dry = seen.query.get("dryRun") == "All"
        if content_type == "application/apply-patch+yaml":
            owner = (seen.plural, key, seen.query["fieldManager"])
            last = kube._applied.get(owner, {})
            item = applied(copy.deepcopy(before or {}), last, seen.body)
            if not dry:
                kube._applied[owner] = seen.body
        elif before is None:
            return refused(404, "NotFound", f'{seen.plural} "{key[1]}" not found')
        else:
            stale = conflict(seen.body, before)
            if stale is not None:
                return stale
            item = merged(before, seen.body)
        if dry:
            return aiohttp.web.json_response(item)
        return aiohttp.web.json_response(kube._write(seen.plural, key[0], item, status=status))

    async def _watch(self, request: kmock.Request, seen: Seen) -> aiohttp.web.StreamResponse:
        kube = self._kube
        version = int(seen.query["resourceVersion"])
        if version < kube._oldest:
            return refused(410, "Expired", "too old resource version")
        selector = seen.query.get("labelSelector", "")
        watcher = Watcher(seen.plural, request.namespace, selector, asyncio.Queue())
        for at, plural, kind, item in kube._history:
            if at > version and plural == seen.plural and request.namespace in (None, item["metadata"]["namespace"]):
                kube._tell_one(watcher, kind, item, item if kind == "DELETED" else None)
        kube._watchers.append(watcher)
        response = aiohttp.web.StreamResponse(headers={"content-type": "application/json"})
        raw = request._raw_request
        assert raw is not None
        try:
            await response.prepare(raw)
            async with asyncio.timeout(float(seen.query.get("timeoutSeconds", "3600"))):
                await self._follow(watcher, response, raw)
        except TimeoutError:
            pass
        finally:
            kube._watchers.remove(watcher)
        await response.write_eof()
        return response

    async def _follow(
        self, watcher: Watcher, response: aiohttp.web.StreamResponse, raw: aiohttp.web.BaseRequest
    ) -> None:
        while (line := await watcher.queue.get()) is not None:
            if line == b"CUT":
                assert raw.transport is not None
                raw.transport.abort()
                return
            if not watcher.stalled:
                await response.write(line)


async def _faulty(fault: Fault) -> aiohttp.web.StreamResponse:
    if fault.times is not None:
        fault.times -= 1
    if fault.hang:
        await asyncio.Event().wait()
    return refused(fault.status, fault.reason or "Scripted", "as the test wants it", fault.headers)
