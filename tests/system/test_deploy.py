"""The cluster files, as far as they can be checked without a cloud, a Kubernetes or a Slurm.

The launcher's file is checked by Ray's own schema and checks; manifests by the published schemas of KubeRay and Kueue,
which `scripts/crd_schemas.py` trims (`crds/`), and by what Kueue's webhook for jobs refuses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


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


@pytest.fixture(scope="module")
def validate() -> Callable[[Any], None]:
    """Checks a manifest by the published schema of its kind; a job's cluster by that of clusters."""
    import jsonschema

    found = [json.loads(file.read_text()) for file in (Path(__file__).parent / "crds").glob("*.json")]
    schemas = {(one["apiVersion"], one["kind"]): one["schema"] for one in found}

    def check(manifest: Any) -> None:
        jsonschema.validate(manifest, schemas[manifest["apiVersion"], manifest["kind"]])
        if manifest["kind"] == "RayJob":
            check({"apiVersion": manifest["apiVersion"], "kind": "RayCluster", "spec": cluster_of(manifest)})

    return check


def cluster_of(manifest: Any) -> Any:
    """The cluster of a RayJob, or the RayCluster's own."""
    return manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]


def groups_of(manifest: Any) -> list[Any]:
    """The head's group and those of the workers."""
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


RAY = ["kuberay-cluster", "kuberay-job", "kuberay-kueue-job"]


@pytest.mark.parametrize("name", RAY)
def test_kuberays_manifests(root: Path, pins: dict[str, str], validate: Callable[[Any], None], name: str) -> None:
    manifest = read_yaml(root / "deploy" / f"{name}.yaml")
    validate(manifest)
    spec, cluster = manifest["spec"], cluster_of(manifest)
    assert cluster["rayVersion"] == pins["ray"]
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    templates = [group["template"] for group in groups_of(manifest)]
    if manifest["kind"] == "RayJob":
        import yaml

        assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode")
        assert spec["entrypoint"].startswith("python -m harness ")
        assert set(yaml.safe_load(spec["runtimeEnvYAML"])) == {"working_dir"}
        templates.append(spec["submitterPodTemplate"])
    for template in templates:
        (container,) = template["spec"]["containers"]
        assert container["image"] == "hkdbench-nodes:latest"
        env = {one["name"]: one for one in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "hkdbench-ray"
        volumes = {one["name"] for one in template["spec"].get("volumes", ())}
        assert {one["name"] for one in container.get("volumeMounts", ())} <= volumes


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("spec.entryPoint", "python"),
        ("spec.backoffLimit", "2"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.environment", []),
    ],
)
def test_a_wrong_manifest_is_refused(root: Path, validate: Callable[[Any], None], place: str, value: Any) -> None:
    import jsonschema

    manifest = read_yaml(root / "deploy" / "kuberay-job.yaml")
    *parents, last = place.split(".")
    table = manifest
    for part in parents:
        table = table[int(part) if part.isdigit() else part]
    table[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest)


def test_kueues_queues_have_room_for_the_job(root: Path, validate: Callable[[Any], None]) -> None:
    """The job is admitted, by what Kueue's webhook checks and by the quota: 64 GPUs."""
    import yaml

    queues = {one["kind"]: one for one in yaml.safe_load_all((root / "deploy" / "kueue.yaml").read_text())}
    assert set(queues) == {"ResourceFlavor", "ClusterQueue", "LocalQueue"}
    for one in queues.values():
        validate(one)
    job = read_yaml(root / "deploy" / "kuberay-kueue-job.yaml")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queues["LocalQueue"]["metadata"]["name"]
    assert queues["LocalQueue"]["spec"]["clusterQueue"] == queues["ClusterQueue"]["metadata"]["name"]
    assert job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in job["spec"]
    assert not cluster_of(job).get("enableInTreeAutoscaling")
    assert len(groups_of(job)) < 8

    (group,) = queues["ClusterQueue"]["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == queues["ResourceFlavor"]["metadata"]["name"]
    quota = {one["name"]: amount(one["nominalQuota"]) for one in flavor["resources"]}
    assert list(quota) == group["coveredResources"]
    pods = [(one.get("replicas", 1), one["template"]) for one in groups_of(job)] + [
        (1, job["spec"]["submitterPodTemplate"])
    ]
    asked = dict.fromkeys(quota, 0.0)
    for count, template in pods:
        for name, value in template["spec"]["containers"][0]["resources"]["requests"].items():
            asked[name] += count * amount(value)
    assert asked["nvidia.com/gpu"] == 64 == quota["nvidia.com/gpu"]
    assert all(asked[name] <= quota[name] for name in quota)


def amount(quantity: str | int) -> float:
    """A Kubernetes quantity as a number."""
    text = str(quantity)
    return float(text.removesuffix("Gi")) * (2**30 if text.endswith("Gi") else 1)


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
