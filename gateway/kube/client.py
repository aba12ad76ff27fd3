"""Requests to the Kubernetes API: JSON in, JSON out, with a time limit and a size limit on everything.

Built on the official client's configuration, credentials and transport; of its typed models nothing is used, since
custom resources have none and typed copies of 2,000 objects are dear. Thread-safe. Every failure is a KubernetesFailure
whose text names the request and what the server said, never a header, a token or the body of a Secret.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from kubernetes.client import ApiClient, ApiException, Configuration

from gateway.errors import KubernetesFailure
from gateway.model import Frozen

MERGE_PATCH: Final = "application/merge-patch+json"  # RFC 7396
APPLY_PATCH: Final = "application/apply-patch+yaml"  # server-side apply; JSON is YAML

_CHUNK_BYTES: Final = 65_536
_TEXT_CHARS_MAX: Final = 300


class Limits(Frozen, frozen=True):
    """How long is waited, in seconds (> 0), for a connection, and for each piece of an answer; the largest answer, and
    the largest event of a watch, in bytes.
    """

    connect_s: float = 5.0
    answer_s: float = 15.0
    answer_bytes: int = 64 * 2**20
    event_bytes: int = 8 * 2**20


class _Status(msgspec.Struct):
    """What an API server says of a failure (``Status`` of meta/v1)."""

    message: str = ""
    reason: str = ""
    code: int = 0


class KubeClient:
    """A connection pool to one API server."""

    def __init__(self, configuration: Configuration, limits: Limits, user_agent: str) -> None:
        self._api = ApiClient(configuration)
        self._api.user_agent = user_agent
        self._limits = limits

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return what is at a path. Raises KubernetesFailure."""
        return self.request("GET", path, query)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Any:
        """Make one request and return its answer, decoded. Raises KubernetesFailure; is never repeated by itself."""
        response = self._send(method, path, query, (body, content_type), self._limits.answer_s)
        with _told(method, path), contextlib.closing(response):
            content = response.read(self._limits.answer_bytes + 1)
            if len(content) > self._limits.answer_bytes:
                raise KubernetesFailure(f"{method} {path}: the answer is larger than {self._limits.answer_bytes} bytes")
            response.release_conn()
            return msgspec.json.decode(content) if content else None

    def watch(self, path: str, query: Mapping[str, str], idle_s: float) -> EventStream:
        """Open a watch, of which each piece may take ``idle_s`` seconds. Raises KubernetesFailure."""
        response = self._send("GET", path, query, (None, ""), self._limits.answer_s)
        connection = response.connection
        sock = getattr(connection, "sock", None)
        if sock is not None:
            sock.settimeout(idle_s)
        return EventStream(response, path, self._limits.event_bytes)

    def close(self) -> None:
        """Close idle connections."""
        self._api.rest_client.pool_manager.clear()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        content: tuple[object, str],
        answer_s: float,
    ) -> urllib3.BaseHTTPResponse:
        body, content_type = content
        headers: dict[str, str] = {"accept": "application/json", **self._api.default_headers}
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        encoded = None
        if body is not None:
            headers["content-type"] = content_type
            encoded = msgspec.json.encode(body)
        url = self._api.configuration.host + quote(path) + (f"?{urlencode(query)}" if query else "")
        with _told(method, path):
            response = self._api.rest_client.pool_manager.request(
                method,
                url,
                body=encoded,
                headers=headers,
                timeout=urllib3.Timeout(connect=self._limits.connect_s, read=answer_s),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            if not 200 <= response.status < 300:
                with contextlib.closing(response):
                    raise _refusal(method, path, response)
        return response


class EventStream:
    """The events of one watch. Read by one thread; ``close`` may be called by any."""

    def __init__(self, response: urllib3.BaseHTTPResponse, path: str, event_bytes: int) -> None:
        self._response = response
        self._path = path
        self._event_bytes = event_bytes

    def __iter__(self) -> Iterator[Sequence[bytes]]:
        """Yield the lines of each piece that arrives, one event per line. Raises KubernetesFailure."""
        rest = b""
        with _told("WATCH", self._path):
            while piece := self._response.read1(_CHUNK_BYTES):
                *lines, rest = (rest + piece).split(b"\n")
                if max(map(len, (*lines, rest))) > self._event_bytes:
                    raise KubernetesFailure(f"WATCH {self._path}: an event is larger than {self._event_bytes} bytes")
                if lines:
                    yield [line for line in lines if line]

    def close(self) -> None:
        """End the stream, also while another thread waits for its next piece."""
        with contextlib.suppress(Exception):  # whatever state the connection is in, it is not needed any more
            self._response.shutdown()
        with contextlib.suppress(Exception):
            self._response.close()


@contextlib.contextmanager
def _told(method: str, path: str) -> Iterator[None]:
    """Turn what a transport raises into a KubernetesFailure."""
    try:
        yield
    except (ApiException, urllib3.exceptions.HTTPError, OSError, ValueError, msgspec.MsgspecError) as error:
        silent = isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError)
        text = f"{method} {path}: {_shown(error)}"
        raise KubernetesFailure(text, silent=silent) from None


def _shown(error: Exception) -> str:
    """Say what went wrong; the text of the transport names hosts and errors, no credential."""
    reason = str(getattr(error, "reason", None) or error)
    return f"{type(error).__name__}: {reason[:_TEXT_CHARS_MAX]}"


def _refusal(method: str, path: str, response: urllib3.BaseHTTPResponse) -> KubernetesFailure:
    status = _Status()
    with contextlib.suppress(msgspec.MsgspecError, urllib3.exceptions.HTTPError, OSError):
        status = msgspec.json.decode(response.read(_CHUNK_BYTES), type=_Status)
    said = status.message[:_TEXT_CHARS_MAX] or status.reason or str(response.reason)
    return KubernetesFailure(
        f"{method} {path}: {response.status} {said}",
        status=response.status,
        reason=status.reason,
        retry_after_s=_seconds(response.headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
