"""What keeps a registry from being read in the cluster is told before anything starts, setting by setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.cluster import ClusterWatch, check_cluster, identity
from gateway.app.source import FolderWatch, new_registry
from gateway.errors import Overloaded, SettingsInvalid
from gateway.settings import Settings


def settings(tmp_path: Path, **given: object) -> Settings:
    """Settings of a gateway in a pod of the namespace ``llm-gateway``."""
    for name, content in (("token", "t"), ("ca.crt", "c"), ("namespace", "llm-gateway\n")):
        (tmp_path / name).write_text(content)
    defaults = {"registry_source": "kubernetes", "kubernetes_credentials_dir": tmp_path}
    return Settings.load(**{**defaults, **given})


@pytest.fixture(autouse=True)
def pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Kubernetes gives to every pod."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


def test_a_namespace_is_needed_and_is_not_the_gateways_own(tmp_path: Path) -> None:
    """Authors of scenarios must not reach the gateway's own Secrets."""
    with pytest.raises(SettingsInvalid, match="LLM_GATEWAY_REGISTRY_NAMESPACE: expected the namespace"):
        check_cluster(settings(tmp_path))
    with pytest.raises(SettingsInvalid, match="expected another namespace than the gateway's own, llm-gateway"):
        check_cluster(settings(tmp_path, registry_namespace="llm-gateway"))
    check_cluster(settings(tmp_path, registry_namespace="registry"))
    with pytest.raises(SettingsInvalid, match="LLM_GATEWAY_REGISTRY_NAMESPACE"):
        settings(tmp_path, registry_namespace="Not A Namespace")


def test_what_is_missing_of_the_access_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every missing thing at once; a kubeconfig file needs none of them."""
    wanted = settings(tmp_path, registry_namespace="registry")
    (tmp_path / "token").unlink()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(SettingsInvalid) as refused:
        check_cluster(wanted)
    assert "KUBERNETES_SERVICE_HOST is not set" in str(refused.value)
    assert "has no token" in str(refused.value)
    (tmp_path / "kubeconfig").write_text("{}")
    check_cluster(
        Settings.load(**{**wanted.model_dump(exclude_unset=True), "kubernetes_config": tmp_path / "kubeconfig"})
    )


def test_before_the_first_load_no_key_is_judged(tmp_path: Path) -> None:
    """503 instead of 401: a client that is refused may give up its key."""
    registry = new_registry(settings(tmp_path, registry_namespace="registry"))
    assert isinstance(registry, ClusterWatch)
    registry.load()
    assert registry.snapshot.generation == 0
    with pytest.raises(Overloaded) as refused:
        registry.snapshot.keys[b"digest"]
    assert "Kubernetes API" in str(refused.value.detail)
    assert "Kubernetes" not in refused.value.message


def test_the_source_is_a_folder_unless_it_is_said(tmp_path: Path) -> None:
    """The default of every installation so far."""
    assert isinstance(new_registry(Settings.load(registry=tmp_path)), FolderWatch)


def test_each_process_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Of the pod where it is told, else of the host, and of the process."""
    assert identity(settings(tmp_path, pod_name="gateway-0")).startswith("gateway-0-")
    assert identity(settings(tmp_path)).rpartition("-")[2].isdigit()
