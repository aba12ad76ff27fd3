"""A gateway whose registry is the custom resources of a simulated cluster."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trustme
import yaml

from tests.support.gateway import GatewayProcess
from tests.support.kube import KubeServer, kubeconfig

TOKEN = "sesame-of-the-service-account"
QUICK = {
    "LLM_GATEWAY_KUBERNETES_BACKOFF_MAX_S": "0.5",
    "LLM_GATEWAY_KUBERNETES_WATCH_IDLE_S": "30",
    "LLM_GATEWAY_POD_NAME": "gateway-0",
}


class ClusterFiles:
    """What a gateway needs to reach a server over TLS: a kubeconfig with its authority and a token."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.ca_file = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def kubeconfig(self, url: str) -> Path:
        """Write the kubeconfig for a server."""
        path = self._folder / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(kubeconfig(url, authority=str(self.ca_file), token=TOKEN)))
        return path

    def credentials(self, namespace: str) -> Path:
        """Write the folder of a pod's service account."""
        folder = self._folder / "serviceaccount"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(TOKEN)
        (folder / "ca.crt").write_bytes(self.ca_file.read_bytes())
        (folder / "namespace").write_text(namespace)
        return folder


@contextmanager
def api_server(folder: Path, *, version: int = 1000) -> Iterator[tuple[KubeServer, dict[str, str]]]:
    """A server that speaks TLS and wants a token, and the settings of a gateway in a pod of its cluster."""
    files = ClusterFiles(folder)
    with KubeServer(tls=files.context, token=TOKEN, version=version) as kube:
        yield kube, in_pod(files, kube)


def in_pod(files: ClusterFiles, kube: KubeServer, namespace: str = "llm-gateway") -> dict[str, str]:
    """The environment of a gateway in a pod of this namespace, whose registry is in the namespace ``registry``."""
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(kube.port),
        "LLM_GATEWAY_KUBERNETES_CREDENTIALS_DIR": str(files.credentials(namespace)),
        "LLM_GATEWAY_REGISTRY_SOURCE": "kubernetes",
        "LLM_GATEWAY_REGISTRY_NAMESPACE": "registry",
        **QUICK,
    }


def cluster_gateway(
    env: Mapping[str, str], key: str = "", *, awaits_readiness: bool = True, **more: str
) -> GatewayProcess:
    """A gateway whose folder is empty; the settings of ``env`` say where its registry is."""
    return GatewayProcess([], key=key, env={**env, **more}, awaits_readiness=awaits_readiness)
