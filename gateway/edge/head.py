"""The head of a request: the few fields that matter to the gateway, found in one pass.

Client credentials, cookies and addresses stop here: nothing of a client's head goes upstream but its trace context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.auth import ClientAddress, read_credentials
from gateway.errors import InvalidRequest
from gateway.model import Credentials, Frozen
from gateway.telemetry import TraceContext, request_id_from, trace_from

_WANTED = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"content-length",
        b"content-encoding",
        b"x-forwarded-for",
        b"cache-control",
    }
)
_CREDENTIAL_HEADERS = (b"x-api-key", b"api-key")


class RequestHead(Frozen, frozen=True):
    """What the gateway takes from a head, and derives from nothing else: the same for each request that has this head.

    ``request_id`` is ``""`` and ``trace`` None where the caller gave none that is well-formed. ``content_length`` is
    None where the body's length was not announced. ``routing`` has the headers that conditions of targets look at.
    """

    credentials: Credentials
    request_id: str
    trace: TraceContext | None
    content_length: int | None
    content_encoding: bytes
    routing: Mapping[str, str] = {}
    cache_control: bytes = b""


def read_head(scope: dict[str, Any], addresses: ClientAddress, routing: frozenset[str] = frozenset()) -> RequestHead:
    """Read the head of an HTTP request from its ASGI scope; anything malformed in it counts as absent.

    ``routing`` names further headers to be kept, in lower case; one that is repeated counts as absent.
    """
    found: dict[bytes, bytes] = {}
    presented: list[bytes] = []
    for name, value in scope["headers"]:
        if name not in _WANTED:
            continue
        if name == b"authorization":
            presented.append(_bearer(value))
        elif name in _CREDENTIAL_HEADERS:
            presented.append(value)
        elif name in found:
            # Lists may come in several lines (RFC 9110, 5.3); of single values, a repeated one is no value at all.
            found[name] = found[name] + b"," + value
        else:
            found[name] = value
    client = scope.get("client")
    client_ip = client[0] if client else ""
    if addresses.needs_header:
        client_ip = addresses.of(client_ip, found.get(b"x-forwarded-for", b""))
    length = found.get(b"content-length", b"")
    return RequestHead(
        credentials=read_credentials(tuple(presented), client_ip),
        request_id=request_id_from(found.get(b"x-request-id")),
        trace=trace_from(found.get(b"traceparent"), found.get(b"tracestate")),
        content_length=int(length) if length.isdigit() else None,
        content_encoding=found.get(b"content-encoding", b""),
        routing=_routing(scope, routing) if routing else {},
        cache_control=found.get(b"cache-control", b""),
    )


def _routing(scope: dict[str, Any], names: frozenset[str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1")
        if name in names:
            kept[name] = "" if name in kept else value.decode("latin-1")
    return kept


def _bearer(value: bytes) -> bytes:
    """The token of ``Authorization: Bearer TOKEN`` (RFC 6750, 2.1); empty, thus malformed, for any other scheme."""
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def refuse_encoded_body(head: RequestHead) -> None:
    """Raises InvalidRequest for a compressed body: what is billed and bounded is what arrives."""
    if head.content_encoding.lower() not in {b"", b"identity"}:
        raise InvalidRequest(
            "Compressed request bodies are not supported.", code="unsupported_encoding", param="content-encoding"
        )
