"""The lane to the Kubernetes API as the settings want it. Imported only where the cluster is really asked."""

from __future__ import annotations

from gateway import __version__
from gateway.kube.client import KubeClient, Limits
from gateway.kube.config import Access, configuration
from gateway.kube.listwatch import WatchOptions
from gateway.settings import Settings
from gateway.settings.sources import kubernetes_service


def kube_client(settings: Settings, *, kubectl: bool = False) -> KubeClient:
    """Return a client. Raises SettingsInvalid where there is no usable address or credential.

    ``kubectl``: for a person at a shell, who may mean the file that kubectl uses.
    """
    access = Access(
        kubeconfig=settings.kubernetes_config,
        context=settings.kubernetes_context,
        service=kubernetes_service(),
        credentials=settings.kubernetes_credentials_dir,
        kubectl=kubectl,
    )
    limits = Limits(
        connect_s=settings.kubernetes_connect_timeout_s,
        answer_s=settings.kubernetes_timeout_s,
        answer_bytes=settings.kubernetes_max_answer_bytes,
        event_bytes=settings.kubernetes_max_event_bytes,
    )
    return KubeClient(configuration(access), limits, f"llm-gateway/{__version__}")


def watch_options(settings: Settings) -> WatchOptions:
    """Return the bounds of a watch."""
    return WatchOptions(
        watch_s=settings.kubernetes_watch_s,
        idle_s=settings.kubernetes_watch_idle_s,
        backoff_max_s=settings.kubernetes_backoff_max_s,
        page=settings.kubernetes_page_objects,
        objects_max=settings.kubernetes_max_objects,
    )
