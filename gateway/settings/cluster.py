"""The settings of the Kubernetes API, from which the registry and the addresses of backends may come.

Declarations and their own checks; ``schema`` adds the rest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import field_validator

from gateway.settings.fields import Duration, Size, TextList
from gateway.settings.fields import count as _count
from gateway.settings.fields import seconds as _seconds
from gateway.settings.fields import size as _bytes
from gateway.settings.fields import value as _value
from gateway.settings.service import ServiceSettings

DISCOVERY_NAMESPACES_MAX: Final = 64
"""Namespaces whose endpoints are watched: each is a connection and a thread of every worker."""

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ClusterSettings(ServiceSettings):
    """How the API server is reached and watched; nothing of it is used unless another setting asks for the cluster."""

    # The Kubernetes API
    kubernetes_config: Path | None = _value(
        None,
        "an existing file",
        "kubeconfig file of the cluster, for a gateway outside of it. Without it the pod's service account is used.",
    )
    kubernetes_context: str | None = _value(
        None, "a name", "Context of the kubeconfig file. Without it the file's current one."
    )
    kubernetes_credentials_dir: Path = _value(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        "a folder",
        "Folder with the files `token`, `ca.crt` and `namespace` of the pod's service account.",
    )
    kubernetes_connect_timeout_s: Duration = _seconds(5, 0.1, 60, "Time for a connection to the Kubernetes API.")
    kubernetes_timeout_s: Duration = _seconds(15, 0.5, 300, "Time for each piece of an answer of the Kubernetes API.")
    kubernetes_watch_s: Duration = _seconds(
        300, 1, 3600, "Shortest life of a watch; each ends at random up to half later and is opened again."
    )
    kubernetes_watch_idle_s: Duration = _seconds(
        90,
        1,
        3600,
        "Silence after which a watch is opened again, where it was; an API server sends a bookmark about every minute.",
    )
    kubernetes_backoff_max_s: Duration = _seconds(
        30, 0.1, 600, "Longest pause, half of it random, before a failed request to the Kubernetes API is repeated."
    )
    kubernetes_page_objects: int = _count(500, 1, 10000, "objects", "Objects per page of a list of the Kubernetes API.")
    kubernetes_max_objects: int = _count(
        20000, 1, 1000000, "objects", "Most objects of one kind that are watched; with more, what was known is kept."
    )
    kubernetes_max_answer_bytes: Size = _bytes(
        64 * 2**20, 2**20, 2**30, "Largest answer of the Kubernetes API, a page of a list included."
    )
    kubernetes_max_event_bytes: Size = _bytes(
        8 * 2**20, 65536, 2**28, "Largest event of a watch; an object is at most some 1.5 MB where it is stored."
    )

    # Endpoint discovery
    discovery_namespaces: TextList = _value(
        (),
        "at most 64 names of namespaces, separated by commas",
        "Namespaces of the Services whose pods Backends call directly (`spec.service`); has an effect with the registry"
        " source kubernetes only.",
    )

    @field_validator("discovery_namespaces")
    @classmethod
    def _are_namespaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > DISCOVERY_NAMESPACES_MAX or not all(_NAMESPACE.fullmatch(name) for name in value):
            raise ValueError("not names of namespaces")
        return tuple(dict.fromkeys(value))
