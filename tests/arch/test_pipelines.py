"""The pipelines run what people run, and the script that they install the chart with does it in order.

The programs here are stand-ins that write down how they were called: docker, Go and the web may be out of reach.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.arch.source import ROOT

CHART = ROOT / "charts" / "llm-gateway"
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
GITHUB: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
GITLAB: dict[str, Any] = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
PYTHONS = ["3.11", "3.13"]


def test_actions_are_pinned_and_may_write_nothing() -> None:
    """Each by the digest of a commit, with its version beside it; no job has a right that it does not need."""
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    used = re.findall(r"uses: *(.*)$", text, re.MULTILINE)
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) for each in used)
    assert GITHUB["permissions"] == {"contents": "read"}
    for job in GITHUB["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 60
        checkout = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))
        assert checkout["with"] == {"persist-credentials": False}


def test_both_pipelines_check_what_people_check() -> None:
    """The same script on the oldest and the newest Python."""
    job = GITHUB["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == PYTHONS
    assert any(step.get("run", "").split()[-1:] == [".ci/run"] for step in job["steps"])
    assert GITLAB["check"]["parallel"]["matrix"] == [{"PYTHON_VERSION": PYTHONS}]
    assert GITLAB["check"]["script"] == [".ci/run"]
    script = (ROOT / ".ci/run").read_text()
    assert "make lint" in script
    assert "make test" in script


def test_both_pipelines_install_every_scenario() -> None:
    """A scenario that is added to the chart and not to them is found here, and so is a script that is gone."""
    job = GITHUB["jobs"]["kind"]
    assert job["strategy"]["matrix"]["scenario"] == SCENARIOS
    assert job["steps"][-1]["run"] == "tools/kind.sh ${{ matrix.scenario }}"
    assert GITLAB["kind"]["parallel"]["matrix"] == [{"SCENARIO": SCENARIOS}]
    assert GITLAB["kind"]["script"] == ['tools/kind.sh "$SCENARIO"']
    for script in ("tools/kind.sh", "tools/image.sh", ".ci/run"):
        assert (ROOT / script).stat().st_mode & 0o111, script
        subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_cluster_is_of_the_release_that_is_aimed_at() -> None:
    """Every node is from one image, pinned by digest; there are zones to spread over."""
    cluster = yaml.safe_load((ROOT / "k8s/kind.yaml").read_text())
    (image,) = {node["image"] for node in cluster["nodes"]}
    assert re.fullmatch(r"kindest/node:v1\.36\.\d+@sha256:[0-9a-f]{64}", image)
    zones = [node["labels"]["topology.kubernetes.io/zone"] for node in cluster["nodes"] if node["role"] == "worker"]
    assert len(set(zones)) == len(zones) == 2
    script = (ROOT / "tools/kind.sh").read_text()
    assert f"cluster={cluster['name']}\n" in script
    assert "--config k8s/kind.yaml" in script


class Project:
    """A copy of what the script reads, and stand-ins for what it calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / "bin").mkdir()
        (folder / ".tools" / "bin").mkdir(parents=True)
        for name in ("charts", "k8s", "tools", "gateway"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for program in ("docker", "go", "curl", "git"):
            self.stand_in(folder / "bin" / program)
        for program in ("kind", "helm"):
            self.stand_in(folder / ".tools" / "bin" / program)

    def stand_in(self, path: Path) -> None:
        """A program that writes down its name and arguments, and fails where they hold what is in FAILS."""
        path.write_text(
            f'#!/bin/sh\necho "{path.name} $*" >>"{self.calls}"\n'
            'test -z "$FAILS" && exit 0\ncase "$*" in *"$FAILS"*) exit 1;; esac\n'
        )
        path.chmod(0o755)

    def run(self, *scenarios: str, fails: str = "") -> subprocess.CompletedProcess[str]:
        """Run the script."""
        environment = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "FAILS": fails}
        return subprocess.run(
            [self.folder / "tools" / "kind.sh", *scenarios],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def called(self) -> list[str]:
        """What was called, in order; what runs in a node without the way there."""
        prefix = "docker exec -i -e KUBECONFIG=/etc/kubernetes/admin.conf llm-gateway-control-plane "
        return [line.removeprefix(prefix) for line in self.calls.read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh one."""
    return Project(tmp_path)


def test_every_scenario_is_installed_tested_and_removed(project: Project) -> None:
    """In the order of their names, each in a restricted namespace of its own, on one cluster with the image in it."""
    result = project.run()
    assert result.returncode == 0, result.stderr
    called = project.called()
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    build, load = (
        next(at for at, line in enumerate(called) if re.match(pattern, line))
        for pattern in (
            rf"docker build --tag llm-gateway:{version} ",
            rf"kind load docker-image llm-gateway:{version} ",
        )
    )
    create = next(at for at, line in enumerate(called) if line.startswith("kind create cluster --config k8s/kind.yaml"))
    assert build < create < load
    at = load
    for name in SCENARIOS:
        values = f"/charts/llm-gateway/ci/{name}-values.yaml"
        for expected in (
            f"kubectl create namespace gw-{name}",
            f"kubectl label namespace gw-{name} pod-security.kubernetes.io/enforce=restricted",
            f"/charts/helm -n gw-{name} install gw /charts/llm-gateway -f {values} --wait --timeout 5m",
            f"/charts/helm -n gw-{name} test gw --logs --timeout 5m",
            f"/charts/helm -n gw-{name} uninstall gw --ignore-not-found --wait --timeout 5m",
            f"kubectl delete namespace gw-{name} --timeout=180s",
        ):
            at = called.index(expected, at) + 1
    assert result.stderr.splitlines()[-1] == f"All installed and tested: {' '.join(SCENARIOS)}"


def test_what_a_scenario_needs_comes_first(project: Project) -> None:
    """Definitions and operators of pinned releases, then the objects beside the chart, then the chart."""
    assert project.run("keda", "custom-resources").returncode == 0
    called = project.called()
    operator = next(
        at for at, line in enumerate(called) if re.match(r"curl .*/keda/releases/download/v[\d.]+/keda-", line)
    )
    beside = called.index("kubectl apply -f -")
    assert operator < beside < next(at for at, line in enumerate(called) if " install gw " in line)
    definitions = called.index(
        "/charts/helm -n default upgrade --install llm-gateway-crds /charts/llm-gateway-crds --take-ownership"
    )
    served = "kubectl wait --for=condition=Established customresourcedefinition --all --timeout=60s"
    assert operator < called.index(served) < beside
    assert called.index(served, definitions) < called.index("kubectl apply -f -", definitions)


def test_a_scenario_that_fails_is_explained_and_left_there(project: Project) -> None:
    """The exit code says so, the state of the cluster is printed, and nothing else is tried."""
    result = project.run("minimal", "production", fails="test gw")
    assert result.returncode == 1
    assert "The scenario minimal failed" in result.stderr
    called = project.called()
    assert "kubectl -n gw-minimal get events --sort-by=.lastTimestamp" in called
    assert not any("uninstall" in line or "gw-production" in line for line in called)


def test_what_a_failed_run_left_is_removed_by_the_next(project: Project) -> None:
    """Release, objects beside it and namespace, before they are made again; with no release, too."""
    docker = project.folder / "bin" / "docker"
    left = '\ncase "$*" in *"get namespace gw-production "*) echo namespace/gw-production;; esac\n'
    docker.write_text(docker.read_text().replace('test -z "$FAILS"', f'{left}test -z "$FAILS"'))
    result = project.run("minimal", "production")
    assert result.returncode == 0, result.stderr
    called = project.called()
    uninstall = "/charts/helm -n gw-{} uninstall gw --ignore-not-found --wait --timeout 5m"
    assert called.count(uninstall.format("minimal")) == 1
    first = called.index(uninstall.format("production"))
    assert called.index("kubectl config set-context --current --namespace=gw-production") < first
    again = called.index("kubectl create namespace gw-production")
    for removed in (
        "kubectl delete --ignore-not-found --timeout=180s -f -",
        "kubectl delete namespace gw-production --timeout=180s",
    ):
        assert first < called.index(removed, first) < again
    assert called.count(uninstall.format("production")) == 2


def test_a_scenario_that_does_not_exist_is_said_before_anything_is_done(project: Project) -> None:
    """With the file that was looked for."""
    result = project.run("minimal", "maximal")
    assert result.returncode == 1
    assert result.stderr == "maximal is no scenario: there is no charts/llm-gateway/ci/maximal-values.yaml\n"
    assert not project.calls.exists()


def test_a_cluster_that_is_there_is_used_again(project: Project) -> None:
    """Nothing is created twice."""
    (project.folder / ".tools" / "bin" / "kind").write_text(
        f'#!/bin/sh\necho "kind $*" >>"{project.calls}"\ncase "$*" in "get clusters") echo llm-gateway;; esac\n'
    )
    assert project.run("minimal").returncode == 0
    assert not any(line.startswith("kind create") for line in project.called())
