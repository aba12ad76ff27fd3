"""A registry from a folder to a (simulated) cluster and back, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gateway.registry import AnySecret, load_folder
from tests.support.cluster import TOKEN, ClusterFiles
from tests.support.documents import backend, document, echo_backend, scenario, tenant
from tests.support.gateway import ROOT
from tests.support.kube import KubeServer

REF = {"type": "bearer", "secret": {"secretRef": {"name": "provider", "key": "token"}}}


class Shell:
    """The command line of a person whose kubectl speaks to the cluster."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder = folder
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``llm-gateway registry``."""
        command = [sys.executable, "-m", "gateway.cli", "registry", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self._env, capture_output=True, text=True, timeout=60, check=False
        )

    def imports(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Import the folder ``registry`` into the namespace ``registry``."""
        return self.run("import", "registry", "--namespace", "registry", *words)


@contextmanager
def shell(folder: Path) -> Iterator[tuple[KubeServer, Shell]]:
    """A cluster and a shell."""
    files = ClusterFiles(folder)
    (folder / "registry").mkdir()
    with KubeServer(tls=files.context, token=TOKEN) as kube:
        yield kube, Shell(folder, files.kubeconfig(kube.url))


def write(folder: Path, *documents: dict[str, Any]) -> None:
    """Write documents to the registry's folder."""
    (folder / "registry/objects.yaml").write_text(yaml.safe_dump_all(documents))


def test_import_applies_what_differs_and_export_brings_it_back(tmp_path: Path) -> None:
    """First everything, then nothing, then the one field that changed; bare prompts in full; clean on the way back."""
    with shell(tmp_path) as (kube, person):
        objects = [
            backend("main", "https://api.example/v1", auth=REF),
            scenario("chat", "main", prompt="hello.v1"),
            tenant(),
        ]
        objects[0]["metadata"]["labels"] = {"team": "llm"}
        write(tmp_path, *objects)
        (tmp_path / "registry/prompts/hello").mkdir(parents=True)
        (tmp_path / "registry/prompts/hello/v1.yaml").write_text("version: v1\ntemplate: Be kind.\n")

        tried = person.imports("--dry-run")
        assert tried.returncode == 0, tried.stderr
        assert "4 would be written" in tried.stdout
        assert kube.all("Backend") == []

        done = person.imports()
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "Backend/main: created"
        assert "4 written, 0 as they were, 0 refused" in done.stdout
        assert kube.get("Prompt", "hello.v1")["spec"] == {"inputVars": [], "template": "Be kind."}  # type: ignore[index]

        writes = len([seen for seen in kube.requests if seen.method == "PATCH"])
        assert "0 written, 4 as they were" in person.imports().stdout
        assert len([seen for seen in kube.requests if seen.method == "PATCH"]) == writes

        objects[0]["spec"]["timeouts"] = {"total": "2m"}
        write(tmp_path, *objects)
        kube.put(tenant("other"))
        changed = person.imports()
        assert "Backend/main: changed spec.timeouts" in changed.stdout
        assert "only in the cluster, and left alone: Tenant/other" in changed.stdout
        applied = next(seen for seen in reversed(kube.requests) if seen.method == "PATCH")
        assert applied.headers["content-type"] == "application/apply-patch+yaml"
        assert applied.query["fieldManager"] == "llm-gateway-import"
        assert not [seen for seen in kube.requests if seen.plural == "secrets"]


def test_export_writes_clean_documents_and_only_those_that_differ(tmp_path: Path) -> None:
    """Nothing of what the API server or a tool added; a folder that loads, and the same file the next time."""
    with shell(tmp_path) as (kube, person):
        main = backend("main", "https://api.example/v1", auth=REF)
        main["metadata"]["labels"] = {"team": "llm", "app.kubernetes.io/managed-by": "Helm"}
        kube.put_all([main, scenario("chat", "main"), tenant("other")])
        kube.put({**tenant(), "metadata": {"name": "acme", "annotations": {"kubectl.kubernetes.io/x": "{}"}}})
        kube.put(
            document("Prompt", "hello.v1", {"template": "Be kind.\nBe brief: {{{text}}}\n", "inputVars": ["text"]})
        )
        exported = person.run("export", "--namespace", "registry", "--out", "back")
        assert exported.returncode == 0, exported.stderr
        back = load_folder(tmp_path / "back", AnySecret(cluster=True), None, 1.0)
        assert back.problems == ()
        assert set(back.snapshot.tenants) == {"acme", "other"}
        written = yaml.safe_load((tmp_path / "back/backends/main.yaml").read_text())
        assert written == {**main, "metadata": {"name": "main", "labels": {"team": "llm"}}}
        assert "metadata:\n  name: acme\n" in (tmp_path / "back/tenants/acme.yaml").read_text()
        assert "template: |\n    Be kind.\n" in (tmp_path / "back/prompts/hello.v1.yaml").read_text()
        again = person.run("export", "--namespace", "registry", "--out", "back")
        assert "0 written, 5 as they were" in again.stdout
        printed = person.run("export", "--namespace", "registry").stdout
        assert next(each["kind"] for each in yaml.safe_load_all(printed)) == "Backend"


def test_what_the_cluster_would_not_take_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Secrets of a folder and plain mistakes are named with file and field; a foreign namespace, too."""
    with shell(tmp_path) as (kube, person):
        by_env = {"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_X"}}
        write(tmp_path, echo_backend(), backend("main", "https://api.example", auth=by_env))
        done = person.imports()
        assert done.returncode == 2
        assert "spec.auth.secret.env: is for a registry in a folder; in the cluster use secretRef" in done.stderr
        misplaced = document("Backend", "echo", {"provider": "echo"})
        misplaced["metadata"]["namespace"] = "elsewhere"
        write(tmp_path, misplaced)
        done = person.imports()
        assert done.returncode == 2
        assert "Backend/echo is of the namespace elsewhere" in done.stderr
        assert not [seen for seen in kube.requests if seen.method != "GET"]


def test_a_refusal_of_the_api_server_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    """One object that is refused fails the command and nothing else; a cluster that cannot be read says why."""
    with shell(tmp_path) as (kube, person):
        write(tmp_path, echo_backend(), tenant())
        kube.fail(422, plural="backends", action="update")
        done = person.imports()
        assert done.returncode == 1
        assert "Backend/echo: refused: PATCH" in done.stderr
        assert "Tenant/acme: created" in done.stdout
        kube.mend()
        kube.fail(403, action="list")
        done = person.imports()
        assert done.returncode == 1
        assert "The cluster cannot be read" in done.stderr
        assert "403" in done.stderr
