"""``demo``: serve the registry with a fresh key for its tenant ``demo``, and say how to call it once it is ready.

Invariant: the key is new at every start, is printed once, and only its digest is written, to ``local/demo.yaml`` in
the registry's folder; nothing is written before both ports were seen to be free, since a gateway that runs already
may serve with the document of the start before. The process that was started becomes the gateway itself, so that
signals reach it directly; the one that waits to print the call is no child of it and ends by itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import gateway
from gateway import clock
from gateway.errors import SettingsInvalid
from gateway.registry.keys import api_key_document, generate_key, key_digest

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.settings.units import Address

TENANT = "demo"
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644
_READY_TIMEOUT_S = 60.0
_POLL_S = 0.05


def demo(settings: Settings, *, reload: bool) -> int:
    """Serve until told to stop; the exit code. With ``reload`` a changed source file starts the gateway anew."""
    if not settings.registry.is_dir():
        raise SettingsInvalid(f"LLM_GATEWAY_REGISTRY: expected an existing folder, got {str(settings.registry)!r}")
    if settings.listen_address.port == 0:
        raise SettingsInvalid("LLM_GATEWAY_LISTEN: expected a port other than 0, so that a call can be printed")
    _probe_ports(settings)
    key = generate_key()
    write_key(settings.registry, key)
    announce_when_ready(settings, key)
    if reload:
        _become_reloader(settings)
    from gateway.app.serve import serve

    return serve(settings)


def _probe_ports(settings: Settings) -> None:
    """Raise SettingsInvalid where a port is taken, as a start would a moment later."""
    from gateway.app.serve import listen

    with (
        listen("listen", settings.listen_address),
        listen("management_listen", settings.management_address),
    ):
        pass


def write_key(registry: Path, key: str) -> None:
    """Store the document of ``key`` in the registry's folder in one step.

    It holds a digest only, so whoever may read the rest of the registry may read it: a container's user, too.
    """
    folder = registry / "local"
    folder.mkdir(exist_ok=True)
    with suppress(PermissionError):  # somebody else's folder stays as that one made it
        folder.chmod(_FOLDER_MODE)
    fresh = folder / ".demo.yaml.new"  # hidden files are no documents
    fresh.unlink(missing_ok=True)
    with fresh.open("x", encoding="utf-8") as file:
        file.write(api_key_document("demo-local", TENANT, key_digest(key)))
    fresh.chmod(_FILE_MODE)
    fresh.replace(folder / "demo.yaml")


def _become_reloader(settings: Settings) -> None:
    host, port = settings.listen_address
    command = [sys.executable, "-m", "uvicorn", "--factory", "gateway.app.factory:create_app"]
    package = str(Path(gateway.__file__).parent)
    command += ["--reload", "--reload-dir", package, "--host", host, "--port", str(port), "--no-access-log"]
    sys.stdout.flush()
    os.execve(command[0], command, settings.as_environment())  # noqa: S606  # no shell is the point


def announce_when_ready(settings: Settings, key: str) -> None:
    """Fork a process that waits until the gateway, this process, answers to ``key``, prints a call and ends."""
    serving = os.getpid()
    if first := os.fork():
        os.waitpid(first, 0)
        return
    with suppress(BaseException):  # nothing may get out of the fork into the caller's stack
        if os.fork() == 0:  # a grandchild: the gateway must not find a child that it did not start
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _announce(settings, key, serving)
    os._exit(0)


def _announce(settings: Settings, key: str, serving: int) -> None:
    deadline = clock.monotonic() + _READY_TIMEOUT_S
    while clock.monotonic() < deadline:
        os.kill(serving, 0)  # raises once the gateway is gone
        with suppress(OSError, HTTPException, ValueError, LookupError):
            if _is_ready(settings.management_address):
                print(call_text(settings, key, _ask_for_model(settings.listen_address, key)), flush=True)
                return
        sleep(_POLL_S)


def _is_ready(address: Address) -> bool:
    """Whether the gateway is; on a port that only it knows, it is taken to be."""
    return address.port == 0 or _get(address, "/readyz")[0] == HTTPStatus.OK


def _ask_for_model(address: Address, key: str) -> str:
    _, body = _get(address, "/v1/models", authorization=f"Bearer {key}")
    names = [model["id"] for model in json.loads(body)["data"]]
    return "echo" if "echo" in names else str(names[0])


def _get(address: Address, path: str, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection(_reachable(address.host), address.port, timeout=_READY_TIMEOUT_S)
    connection.request("GET", path, headers={**headers, "connection": "close"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared with, not bound to


def _url(address: Address) -> str:
    host = _reachable(address.host)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


def call_text(settings: Settings, key: str, model: str) -> str:
    """What a newcomer pastes: one call of the gateway on one line, and where to look next."""
    url = _url(settings.listen_address)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello, gateway!"}]})
    return (
        f"\nThe gateway is ready. Call it:\n\n"
        f"curl -sS -w '\\n' {url}/v1/chat/completions -H 'Authorization: Bearer {key}'"
        f" -H 'Content-Type: application/json' -d '{body}'\n\n"
        f"Documentation: {url}/docs   Metrics: {_url(settings.management_address)}/metrics   Stop: Ctrl-C\n"
    )
