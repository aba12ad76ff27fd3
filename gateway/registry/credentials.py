"""The Secrets that backends may name in the cluster: those of the registry's namespace with the label, in memory only.

Invariant: a Secret without the label is never asked for, since the watch selects by label; its value is in no text, no
repr and no log, and the gateway's own Secrets are in another namespace.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import MappingProxyType

from gateway.registry.compile import NOT_IN_THE_CLUSTER
from gateway.registry.resources import CREDENTIAL_LABEL, Resource

Data = Mapping[str, str]


class CredentialUnavailable(Exception):
    """A secret that cannot be had; the text says which and why, never what it holds."""


def prune_secret(resource: Resource) -> dict[str, object]:
    """Keep what is needed of a Secret."""
    metadata = resource["metadata"]
    kept = {name: metadata[name] for name in ("name", "namespace", "resourceVersion") if name in metadata}
    return {"metadata": kept, "data": resource.get("data") or {}}


class ClusterSecrets:
    """A source of secrets for ``compile``; immutable. It reads no environment and no file."""

    in_cluster = True

    def __init__(self, secrets: Mapping[tuple[str, str], Resource] = MappingProxyType({})) -> None:
        self._data: dict[str, Data] = {name: secret["data"] for (_, name), secret in secrets.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClusterSecrets) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]  # it is compared, never a key

    def env(self, name: str) -> bytes:  # noqa: ARG002  # whatever the name
        """Refuse: who writes a resource has no say over the environment of the gateway."""
        raise CredentialUnavailable(NOT_IN_THE_CLUSTER)

    def file(self, name: str) -> bytes:
        """Refuse: who writes a resource has no say over the files of the gateway."""
        return self.env(name)

    def ref(self, name: str, key: str) -> bytes:
        """Return the value of a key of a Secret, without one newline at its end. Raises CredentialUnavailable."""
        data = self._data.get(name)
        if data is None:
            raise CredentialUnavailable(f"there is no Secret `{name}` with the label {CREDENTIAL_LABEL}")
        if key not in data:
            raise CredentialUnavailable(f"the Secret `{name}` has no key `{key}`")
        try:
            value = base64.b64decode(data[key], validate=True)
        except (binascii.Error, ValueError):
            raise CredentialUnavailable(f"the key `{key}` of the Secret `{name}` cannot be read") from None
        return value.removesuffix(b"\n").removesuffix(b"\r")
