"""The cluster files, as far as they can be checked without a cloud, a Kubernetes or a Slurm.

The launcher's file is checked by Ray's own schema and checks. KubeRay's schema is in no package: its manifests are
checked against the fields of its `v1` API (apis/ray/v1/*_types.go), the pods only where they matter here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

JOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypoint", "entrypointNumCpus", "entrypointNumGpus",
    "entrypointResources", "jobId", "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend",
    "ttlSecondsAfterFinished",
}  # fmt: skip
CLUSTER = {"autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec", "rayVersion", "suspend", "workerGroupSpecs"}
HEAD = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
WORKERS = {"groupName", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas", "scaleStrategy",
           "template"}  # fmt: skip
CONTAINER = {"env", "envFrom", "image", "imagePullPolicy", "name", "ports", "resources", "volumeMounts"}


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """The versions of the locks, by package."""
    text = (root / "requirements.lock").read_text() + (root / "requirements-dev.lock").read_text()
    return dict(line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))


def read_yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text())


# ------------------------------------------------------------------------------------------- Dockerfile


def test_the_image_has_the_locks_versions(root: Path, pins: dict[str, str]) -> None:
    text = (root / "deploy" / "Dockerfile").read_text()
    assert set(re.findall(r"rayproject/ray:([\d.]+)-py311-(?:cpu|gpu)", text)) == {pins["ray"]}
    assert "COPY requirements.lock" in text
    assert "-r /tmp/requirements.lock" in text
    assert dict(re.findall(r'"(\w+)==([\d.]+)"', text)) == {"s3fs": pins["s3fs"]}
    assert re.search(r"^ARG BASE=", text, re.M)  # CPU or CUDA
    assert "RAY_AUTH_MODE=token" in text


# ------------------------------------------------------------------------------------------- Ray's launcher


def test_the_launchers_file_passes_rays_own_checks(root: Path) -> None:
    import jsonschema
    import ray
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = read_yaml(root / "deploy" / "ray-cluster.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(fillout_defaults(config))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 2}, schema)
    starts = [line for part in ("head", "worker") for line in config[f"{part}_start_ray_commands"] if "start" in line]
    assert len(starts) == 2
    assert all(line.startswith("RAY_AUTH_MODE=token ray start") for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    rules = config["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    assert not any(net["CidrIp"].endswith("/0") for rule in rules for net in rule["IpRanges"])


# ------------------------------------------------------------------------------------------- KubeRay


@pytest.mark.parametrize(("name", "kind"), [("kuberay-cluster", "RayCluster"), ("kuberay-job", "RayJob")])
def test_kuberays_manifests(root: Path, pins: dict[str, str], name: str, kind: str) -> None:
    manifest = read_yaml(root / "deploy" / f"{name}.yaml")
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    spec = manifest["spec"]
    cluster = spec
    if kind == "RayJob":
        assert set(spec) <= JOB
        assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode")
        assert spec["entrypoint"].startswith("python -m harness ")
        import yaml

        assert set(yaml.safe_load(spec["runtimeEnvYAML"])) == {"working_dir"}
        cluster = spec["rayClusterSpec"]
    assert set(cluster) <= CLUSTER
    assert cluster["rayVersion"] == pins["ray"]
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) <= HEAD
    assert head["serviceType"] == "ClusterIP"
    for group in groups:
        assert set(group) <= WORKERS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    templates = [head["template"], *(group["template"] for group in groups)]
    for group in (head, *groups):  # Kubernetes takes strings alone
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    if kind == "RayJob":
        templates.append(spec["submitterPodTemplate"])
    for template in templates:
        assert set(template["spec"]) <= {"containers", "restartPolicy", "terminationGracePeriodSeconds"}
        (container,) = template["spec"]["containers"]
        assert set(container) <= CONTAINER
        assert container["image"] == "hkdbench-nodes:latest"
        env = {one["name"]: one for one in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "hkdbench-ray"
        assert all(isinstance(one.get("value", ""), str) for one in env.values())


# ------------------------------------------------------------------------------------------- Slurm


def test_the_slurm_script_starts_a_cluster_and_hands_on_the_exit_code(root: Path, tmp_path: Path) -> None:
    """With stand-ins for Slurm and Ray that write down how they are called; a node is there once it was started."""
    calls = tmp_path / "calls"
    tools = {
        "scontrol": "echo node1; echo node2",
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "hostname": "echo 192.0.2.7",
        "ray": f'[ "$1" = start ] && echo "ray $*" >> {calls} && exit; '
        f'grep -q "start --head" {calls} && echo " 1 node_a" || exit; '
        f'grep -q "start --block" {calls} && echo " 1 node_b"; exit 0',
        "python": f'[ "$1" = -c ] && echo secret && exit; '
        f'echo "$RAY_ADDRESS $RAY_AUTH_MODE $RAY_AUTH_TOKEN $*" >> {calls}; exit 130',
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = root / "deploy" / "slurm.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "1234567", "SLURM_CPUS_PER_TASK": "8"}
    command = [shutil.which("bash") or "bash", script, "suite", "suites/demo.toml", "--store", "runs"]
    done = subprocess.run(
        command, env=env | {"SLURM_JOB_NODELIST": "node[1-2]"}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130, done.stderr
    head, other, harness = calls.read_text().splitlines()
    assert head.startswith("ray start --head ")
    assert "--port=24567" in head
    assert "--num-cpus=8" in head
    assert other.startswith("ray start --block ")
    assert "--address=192.0.2.7:24567" in other
    assert harness == "192.0.2.7:24567 token secret -m harness suite suites/demo.toml --store runs"


# ------------------------------------------------------------------------------------------- what is uploaded


def test_little_is_uploaded_with_a_job(root: Path) -> None:
    """By Ray's own rules: the code, the suites and the embedded weights, far below its limit of 100 MiB."""
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    excluded = get_excludes_from_ignore_files(root, include_gitignore=True)
    names = {path.name for path in root.iterdir() if not any(rule(path) for rule in excluded)}
    assert {"harness", "methods", "benchmarks", "suites", "pyproject.toml"} <= names
    assert not names & {".git", ".venv", "tests", "docs", "results", "benches", "runs", "deploy"}
    files = [path for name in names for path in [root / name, *(root / name).rglob("*")] if path.is_file()]
    size = sum(path.stat().st_size for path in files if not any(rule(path) for rule in excluded))
    assert size < 20 << 20
