"""The admin API of a gateway process, as an operator calls it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.client import RawClient, Response
from tests.support.gateway import GatewayProcess

TOKEN = "admin-token-of-the-tests"
READ_TOKEN = "read-token-of-the-tests"
ADMIN_ENV = {"LLM_GATEWAY_ADMIN_TOKEN": TOKEN, "LLM_GATEWAY_ADMIN_READ_TOKEN": READ_TOKEN}


def call(
    gateway: GatewayProcess,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = TOKEN,
) -> Response:
    """One request to the management port; ``path`` is below ``/admin/v1``."""
    content = b"" if body is None and method == "POST" else None if body is None else json.dumps(body).encode()
    with RawClient("127.0.0.1", gateway.management_port) as client:
        return client.request(f"/admin/v1{path}", content, key=token, headers={"connection": "close"}, method=method)


def get(gateway: GatewayProcess, path: str, *, token: str | None = TOKEN) -> Any:
    """What a GET answers; it must be 200."""
    answer = call(gateway, "GET", path, token=token)
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json()


def post(gateway: GatewayProcess, path: str, body: Any = None, *, status: int = 200) -> Any:
    """What a POST answers."""
    answer = call(gateway, "POST", path, body)
    assert answer.status == status, (answer.status, answer.body)
    return answer.json()


def error(answer: Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status, str(answer.json()["error"]["code"])


def opens(gateway: GatewayProcess, key: str) -> int:
    """The status of a call with a key."""
    with gateway.client() as client:
        return client.request("/v1/models", key=key, headers={"connection": "close"}).status
