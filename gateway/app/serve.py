"""``llm-gateway serve``: everything that must be right before the first worker starts, and its undoing at the end.

Order: the registry is validated before anything listens; an embedded Valkey starts before the workers and ends after
them; the sockets are bound here, so that a port in use is said once and plainly.
"""

from __future__ import annotations

import gc
import logging
import resource
import shutil
import socket
import tempfile
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.app.arbiter import GatewayApplication, GatewayArbiter, memory_folder
from gateway.app.launch import Inherited, Launch, LogLoss
from gateway.app.redis import check_redis
from gateway.app.source import RegistryWatch, new_registry
from gateway.errors import SettingsInvalid
from gateway.redis.embedded import EmbeddedUnavailable, EmbeddedValkey
from gateway.telemetry import SHARED_BLOCK_BYTES, LineWriter, configure_logging, prepare_metrics_folder
from gateway.telemetry.writer import BLOCK_BYTES

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.settings.units import Address

BACKLOG: Final = 2048
"""Connections that the kernel keeps for us before we accept them."""

_log = logging.getLogger("gateway.app")


def serve(settings: Settings) -> int:
    """Serve until a signal ends it; the exit code of the process.

    Raises RegistryInvalid where any object is bad, and SettingsInvalid where a port or the embedded Valkey cannot be
    had or the CA file not be used; nothing has listened then.
    """
    raise_file_limit()
    with ExitStack() as stack:
        log_loss = LogLoss()
        writer = new_writer(settings, log_loss)
        stack.callback(writer.close)
        configure_logging(settings.log_level, settings.environment, writer)
        registry = new_registry(settings)
        registry.load()
        warn_of_settings(settings)
        check_ca_file(settings)
        check_redis(settings)
        launch = _prepare(settings, registry, (writer, log_loss), stack)
        _log.info("listening on %s, management on %s", launch.data_listener, launch.management_listener)
        return _run(launch)


def new_writer(settings: Settings, log_loss: LogLoss) -> LineWriter:
    """What writes the log; lines of several workers stay apart on their common standard output."""
    block_bytes = SHARED_BLOCK_BYTES if settings.workers > 1 else BLOCK_BYTES
    return LineWriter(max_lines=settings.log_queue_lines, on_dropped=log_loss, block_bytes=block_bytes)


def _prepare(settings: Settings, registry: RegistryWatch, log: tuple[LineWriter, LogLoss], stack: ExitStack) -> Launch:
    data_listener = stack.enter_context(listen("listen", settings.listen_address))
    management_listener = stack.enter_context(listen("management_listen", settings.management_address))
    valkey, redis_url = None, settings.redis_url
    if redis_url == "embedded":
        valkey = start_valkey()
        stack.callback(valkey.stop)
        redis_url = valkey.url
    folder = None
    if settings.workers > 1:
        folder = Path(tempfile.mkdtemp(prefix="llm-gateway-", dir=memory_folder()))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        prepare_metrics_folder(folder)
    inherited = Inherited(
        settings=settings,
        registry=registry,
        writer=log[0],
        log_loss=log[1],
        metrics_folder=folder,
        redis_url=redis_url,
    )
    return Launch(
        inherited=inherited, data_listener=data_listener, management_listener=management_listener, valkey=valkey
    )


def _run(launch: Launch) -> int:
    arbiter = GatewayArbiter(GatewayApplication(launch))
    if launch.inherited.settings.workers > 1:
        import_module("gateway.app.lifecycle")  # once for all; a single worker does it itself: the tree stays smaller
        if launch.inherited.settings.registry_source == "kubernetes":
            import_module("gateway.app.kube")
    gc.collect()
    gc.freeze()  # what is loaded now is shared with the workers, and stays shared when they collect garbage
    try:
        arbiter.run()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    return 0


def start_valkey() -> EmbeddedValkey:
    """The embedded server. Raises SettingsInvalid where it cannot be had."""
    try:
        return EmbeddedValkey.start()
    except EmbeddedUnavailable as error:
        raise SettingsInvalid(f"LLM_GATEWAY_REDIS_URL: {error}") from None


class Listener(socket.socket):
    """A listening socket that logs can show."""

    def __str__(self) -> str:
        host, port = self.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(setting: str, address: Address) -> Listener:
    """A socket bound to ``address``, not listening yet. Raises SettingsInvalid, naming the setting."""
    name = f"LLM_GATEWAY_{setting.upper()}"
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = Listener(family, kind, protocol)
    except OSError as error:
        raise SettingsInvalid(f"{name}: cannot listen on {address.host}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address.host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsInvalid(
            f"{name}: cannot listen on {address.host}, port {address.port}: {error.strerror}"
        ) from None
    listener.setblocking(False)
    return listener


def warn_of_settings(settings: Settings) -> None:
    """Say what is set and has no effect."""
    for name in settings.unknown_variables():
        _log.warning("%s is no setting of this version", name)


def check_ca_file(settings: Settings) -> None:
    """Raises SettingsInvalid where the CA file of backends cannot be used: a worker would find that too late."""
    if settings.upstream_ca_file is not None:
        from gateway.upstream.client import tls_context  # here, as the main process needs it for nothing else

        tls_context(settings.upstream_ca_file)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS names no limit that it would accept
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
