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
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.redis.embedded import server_binary
from tests.support.chart import Object, gateway_pod, one, pod_specs
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually, free_port

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


class RenderedValkey:
    """The container of the rendered StatefulSet as a process, on a free port.

    Where a client of Redis or Valkey for the command line is installed its scripts have it by the name that the image
    gives it, so that the password is renewed and ``is_ready`` can be asked.
    """

    def __init__(self, objects: Sequence[Object], root: Path, secrets: Mapping[str, Files]) -> None:
        spec = pod_specs(objects)["StatefulSet/" + one(objects, "StatefulSet")["metadata"]["name"]]
        assert spec["containers"][0]["command"] == ["sh", "/etc/valkey/config/start.sh"]
        self.kubelet, self.port = Kubelet(objects, root, secrets), free_port()
        self.kubelet.mount(spec)
        self._root = root
        self.command = ["sh", str(root / "start.sh")]
        path = os.pathsep.join([str(server_binary().parent), str(root / "bin"), os.environ["PATH"]])
        self.environment = {"PATH": path}
        for name in ("valkey.conf", "start.sh", "ready.sh"):
            (root / name).write_text(self._script(name))
        (root / "bin").mkdir()
        client = command_line_client()
        if client is not None:
            (root / "bin" / "valkey-cli").symlink_to(client)

    def _script(self, name: str) -> str:
        """With the port and paths of this process, and time ten times as fast."""
        folder = self.kubelet.path("/etc/valkey/config")
        text = self.kubelet.text((folder / name).read_text()).replace(
            f"{folder}/valkey.conf", f"{self._root}/valkey.conf"
        )
        return re.sub(r"(port|-p) 6379\b", rf"\1 {self.port}", text).replace("sleep 2 ", "sleep 0.2 ")

    def __enter__(self) -> Self:
        with (self._root / "output").open("w") as output:
            self._process = subprocess.Popen(
                self.command, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        eventually(self._listens, 20, what="a Valkey that answers")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(10) == 0, "the server itself, not the shell, gets the signal"

    @property
    def output(self) -> str:
        """What it has written."""
        return (self._root / "output").read_text()

    def is_ready(self) -> bool:
        """What its readiness probe says."""
        probe = ["sh", str(self._root / "ready.sh")]
        return subprocess.run(probe, env=self.environment, capture_output=True, timeout=10, check=False).returncode == 0

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def command_line_client() -> str | None:
    """``valkey-cli``, or ``redis-cli``, of which it is a fork and which understands the same; None without one."""
    return shutil.which("valkey-cli") or shutil.which("redis-cli")
