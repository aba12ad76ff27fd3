"""Talks to the admin API of a running gateway, and prints what it says.

Invariant: the token goes to the address that was asked for and nowhere else: through no proxy, after no redirect, and
into no text. Whatever the gateway answers, a failure is a readable line and exit code 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

import typer

TIMEOUT_S: Final = 15.0


class AdminClient:
    """One gateway's admin API. ``as_json`` prints answers as they come instead of tables."""

    def __init__(self, url: str, token: str, *, as_json: bool = False) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._as_json = as_json

    def get(self, *path: str, **parameters: str | None) -> Any:
        """What a GET answers."""
        return json.loads(self.get_text(*path, **parameters))

    def get_text(self, *path: str, **parameters: str | None) -> str:
        """What a GET answers, as text."""
        given = {name.rstrip("_"): value for name, value in parameters.items() if value is not None}
        return self._request("GET", path, params=given)

    def post(self, *path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What a POST answers; fields of ``body`` that are None are left out."""
        given = {name: value for name, value in (body or {}).items() if value is not None}
        return json.loads(self._request("POST", path, json=given))

    def _request(self, method: str, path: Sequence[str], **more: Any) -> str:
        import httpx  # it is slow to import, and help needs none of it

        address = "/".join([self._url, "admin/v1", *(quote(part, safe="") for part in path)])
        headers = {"authorization": f"Bearer {self._token}"}
        try:
            with httpx.Client(trust_env=False, follow_redirects=False, timeout=TIMEOUT_S) as client:
                answer = client.request(method, address, headers=headers, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(f"the gateway at {self._url} cannot be reached: {str(error) or type(error).__name__}")
        if not answer.is_success:
            fail(_refusal(answer.status_code, answer.content))
        return answer.text

    def show(self, answer: Mapping[str, Any], rows: Iterable[Sequence[object]], head: Sequence[str]) -> None:
        """Print an answer as a table, or as it came."""
        if self._as_json:
            print(json.dumps(answer, indent=2))
        else:
            print(table(head, rows))


def connect(url: str | None, token_file: Path | None, *, as_json: bool = False) -> AdminClient:
    """The client that options and settings ask for. Raises SettingsInvalid; ends the program without a token."""
    from gateway.settings import Settings
    from gateway.settings.sources import read_secret_file

    settings = Settings.load(admin_url=url)
    token = settings.admin_token or settings.admin_read_token
    if token_file is not None:
        try:
            token = read_secret_file(token_file).decode("ascii")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no file with a token"
            raise typer.BadParameter(f"{token_file}: {reason}", param_hint="--token-file") from None
    if token is None:
        fail("there is no token: set LLM_GATEWAY_ADMIN_TOKEN or LLM_GATEWAY_ADMIN_TOKEN_FILE, or give --token-file")
    host, port = settings.management_address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # where it listens, not where it is
    default = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return AdminClient(settings.admin_url or default, token, as_json=as_json)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as what they hold; numbers to the right."""
    lines = [[_cell(value) for value in row] for row in rows]
    if not lines:
        return "nothing"
    right = [all(_is_number(line[index]) for line in lines) for index in range(len(head))]
    widths = [max(len(line[index]) for line in [list(head), *lines]) for index in range(len(head))]
    titles = [title.upper() for title in head]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [titles, *lines]
    )


def _cell(value: object) -> str:
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text.isprintable() else repr(text)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).isdecimal()


def fail(text: str) -> NoReturn:
    """End with a line on standard error and exit code 1."""
    print(f"error: {text}", file=sys.stderr)
    raise typer.Exit(1)


def _refusal(status: int, body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        pass
    if status == 404:
        return "there is no admin API at this address"
    return f"the gateway answered {status}"
