"""How the API server is reached and with which credential: the pod's service account, else a kubeconfig file."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.utils.keepalive import tcp_keepalive_socket_options

from gateway.errors import SettingsInvalid
from gateway.model import Frozen
from gateway.settings.rotated import RotatedSecret

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
SERVICE_PORT = "KUBERNETES_SERVICE_PORT"
CONNECTIONS_MAX = 64
"""Connections kept for further use, one per watch under way and some for requests."""

_KEEP_ALIVE_IDLE_S, _KEEP_ALIVE_INTERVAL_S, _KEEP_ALIVE_PROBES = 10, 5, 3
"""A peer that is gone without a word (RFC 1122, section 4.2.3.6) is noticed within half a minute."""


class Access(Frozen, frozen=True):
    """Where the API server and its credential are found.

    ``kubeconfig`` wins where it is given, with ``context`` or else the file's current one. Otherwise ``service`` is
    host and port of the API server as Kubernetes tells every pod, and ``credentials`` the folder with the files
    ``token`` and ``ca.crt`` of the service account. Outside of a pod ``kubectl`` means the file that kubectl
    would use.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    service: tuple[str, str] | None = None
    credentials: Path | None = None
    kubectl: bool = False


def configuration(access: Access) -> Configuration:
    """Return the client's configuration. Raises SettingsInvalid where there is no usable one, naming what is missing.

    The token of a service account is read again whenever its file changes, since the kubelet replaces it.
    """
    config = Configuration()
    try:
        if access.kubeconfig is not None or (access.kubectl and access.service is None):
            file = None if access.kubeconfig is None else str(access.kubeconfig)
            _load: Any = load_kube_config  # it has no types
            _load(config_file=file, context=access.context, client_configuration=config)
        else:
            _load_service_account(access, config)
    except (ConfigException, OSError) as error:
        raise SettingsInvalid(f"the Kubernetes API cannot be used: {error}") from None
    config.retries = False  # how often is decided by who asks; urllib3 takes a bool, too
    config.connection_pool_maxsize = CONNECTIONS_MAX
    config.socket_options = tcp_keepalive_socket_options(_KEEP_ALIVE_IDLE_S, _KEEP_ALIVE_INTERVAL_S, _KEEP_ALIVE_PROBES)
    return config


def _load_service_account(access: Access, config: Configuration) -> None:
    if access.service is None or access.credentials is None:
        raise ConfigException(
            f"this is no pod ({SERVICE_HOST} and {SERVICE_PORT} are not set) and LLM_GATEWAY_KUBERNETES_CONFIG names no"
            " kubeconfig file"
        )
    host, port = access.service
    environ: Mapping[str, str] = {SERVICE_HOST: _unbracketed(host), SERVICE_PORT: port}
    loader: Any = InClusterConfigLoader(  # it has no types
        token_filename=str(access.credentials / "token"),
        cert_filename=str(access.credentials / "ca.crt"),
        environ=environ,
    )
    loader.load_and_set(config)
    token = RotatedSecret(None, access.credentials / "token", bool)

    def use_token_of_now(config: Configuration) -> None:
        if text := token():
            config.api_key["BearerToken"] = f"Bearer {text}"

    hook: Any = use_token_of_now
    config.refresh_api_key_hook = hook  # instead of the loader's, which looks once a minute


def _unbracketed(host: str) -> str:
    """Return an IPv6 address without the brackets that the client adds itself."""
    bare = host.strip("[]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return host
