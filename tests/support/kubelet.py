"""What the kubelet does to a container's files and variables, in a folder: to start a rendered pod without a cluster.

    kubelet = Kubelet(objects, root, secrets={"model-credentials": {"api-key": b"..."}})
    kubelet.mount(spec)                      # every volume of the only container, below root
    kubelet.environment(spec)                # its variables, with paths below root
    kubelet.update("ConfigMap", "gw-registry", {...})   # as a changed object reaches the files, by swapping links

A mounted ConfigMap or Secret is a folder of links into ``..data``, itself a link to a folder that is replaced whole.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.chart import Object, gateway_pod
from tests.support.gateway import GatewayProcess

Files = Mapping[str, bytes]
ADDRESSES = {"LLM_GATEWAY_LISTEN": "0.0.0.0:8080", "LLM_GATEWAY_MANAGEMENT_LISTEN": "0.0.0.0:8081"}
ABSOLUTE = re.compile(r"(?<![\w/.])/(?:etc/(?:llm-gateway|valkey)|data|tmp|dev/shm)\b")
"""Where containers of the chart mount something."""


class Kubelet:
    """The volumes of one pod below ``root``; ``secrets`` are those that no object of the chart makes."""

    def __init__(self, objects: Sequence[Object], root: Path, secrets: Mapping[str, Files]) -> None:
        self._root = root
        self._sources: dict[tuple[str, str], Files] = {("Secret", name): files for name, files in secrets.items()}
        for each in objects:
            data = each.get("data") or {}
            if each["kind"] == "ConfigMap":
                self._sources["ConfigMap", each["metadata"]["name"]] = {k: v.encode() for k, v in data.items()}
            elif each["kind"] == "Secret":
                files = {name: base64.b64decode(text) for name, text in data.items()}
                self._sources["Secret", each["metadata"]["name"]] = files
        self._mounts: list[tuple[Path, Object]] = []
        self._generation = itertools.count()

    def mount(self, spec: Object) -> None:
        """Make every mount of the only container of a pod."""
        (container,) = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            path = self.path(mount["mountPath"])
            path.mkdir(parents=True, exist_ok=True)
            volume = volumes.get(mount["name"], {"emptyDir": {}})  # of a claim's template: a folder, too
            if "emptyDir" not in volume:
                self._mounts.append((path, volume))
                self._swap(path, self._files(volume))

    def path(self, inside: str) -> Path:
        """Where a path of the container is."""
        return self._root / inside.lstrip("/")

    def text(self, text: str) -> str:
        """A text with the paths of mounts below the root."""
        return ABSOLUTE.sub(lambda found: f"{self._root}{found[0]}", text)

    def environment(self, spec: Object) -> dict[str, str]:
        """The variables of the only container; what refers to the pod itself is left out."""
        (container,) = spec["containers"]
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            files = self._sources["ConfigMap", source["configMapRef"]["name"]]
            found |= {name: value.decode() for name, value in files.items()}
        found |= {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}
        return {name: self.text(value) for name, value in found.items()}

    def update(self, kind: str, name: str, files: Files) -> None:
        """Give an object other content, and swap it in wherever it is mounted."""
        self._sources[kind, name] = files
        for path, volume in self._mounts:
            self._swap(path, self._files(volume))

    def _files(self, volume: Object) -> Files:
        if "configMap" in volume:
            return self._picked("ConfigMap", volume["configMap"]["name"], volume["configMap"].get("items"))
        if "secret" in volume:
            return self._picked("Secret", volume["secret"]["secretName"], volume["secret"].get("items"))
        found: dict[str, bytes] = {}
        for source in volume["projected"]["sources"]:
            found |= self._picked("Secret", source["secret"]["name"], source["secret"].get("items"))
        return found

    def _picked(self, kind: str, name: str, items: Sequence[Object] | None) -> Files:
        files = self._sources[kind, name]
        return files if items is None else {item["path"]: files[item["key"]] for item in items}

    def _swap(self, path: Path, files: Files) -> None:
        fresh = path / f"..{next(self._generation)}"
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).write_bytes(content)
            if not (path / name).is_symlink():
                (path / name).symlink_to(Path("..data") / name)
        link = path / "..data_tmp"
        link.symlink_to(fresh.name)
        link.replace(path / "..data")
        for old in path.iterdir():
            if not old.name.startswith("..") and old.name not in files:
                old.unlink()


class RenderedGateway(GatewayProcess):
    """The container of the rendered Deployment as a process, on free ports."""

    def __init__(
        self, objects: list[Object], root: Path, secrets: Mapping[str, Files], changed: Mapping[str, str]
    ) -> None:
        spec = gateway_pod(objects)
        self.kubelet = Kubelet(objects, root, secrets)
        self.kubelet.mount(spec)
        environment = self.kubelet.environment(spec)
        assert {name: environment.pop(name) for name in ADDRESSES} == ADDRESSES
        self.environment = {**environment, **changed}
        assert spec["containers"][0]["args"] == ["serve"], "which is what this starts"
        super().__init__("", env=self.environment)
