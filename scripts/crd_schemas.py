"""Trims the published schemas of KubeRay and Kueue to what the manifests in deploy/ are checked against.

    python -m scripts.crd_schemas KUBERAY KUEUE     two clones; writes tests/system/crds/*.json

A schema keeps every field of its resource. Of a pod it keeps the fields of the pod and its containers, without what is
below those (their values may be anything); descriptions and status are left out. Kubernetes drops or refuses unknown
fields: so `additionalProperties` is false wherever the schema names fields.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

OUT = Path(__file__).resolve().parents[1] / "tests" / "system" / "crds"
SOURCES = {
    "ray-project/kuberay": ("ray-operator/config/crd/bases/ray.io_{}.yaml", ("rayclusters", "rayjobs")),
    "kubernetes-sigs/kueue": (
        "config/components/crd/bases/kueue.x-k8s.io_{}.yaml",
        ("clusterqueues", "localqueues", "resourceflavors"),
    ),
}
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "required")


def trimmed(schema: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema as JSON Schema, without descriptions, and without what is deep in a pod."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept: dict[str, Any] = {name: schema[name] for name in KEPT if name in schema}
    if is_deep(path):
        return {"type": kept["type"]} if "type" in kept else {}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return kept
    if "properties" in schema:
        kept["properties"] = {name: trimmed(one, (*path, name)) for name, one in schema["properties"].items()}
        kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = trimmed(schema["additionalProperties"], (*path, "*"))
    if "items" in schema:
        kept["items"] = trimmed(schema["items"], (*path, "[]"))
    return kept


def is_deep(path: tuple[str, ...]) -> bool:
    """Whether something is below the fields of a pod or of its containers, or is the cluster of a job, which has a
    schema of its own."""
    if path == ("spec", "rayClusterSpec"):
        return True
    pod = next((at for at, name in enumerate(path) if name in ("template", "submitterPodTemplate")), len(path))
    inside = path[pod + 1 :]
    if inside[:2] == ("spec", "containers"):
        return len(inside) > 3 and inside[3] not in ("resources", "env", "envFrom")
    return len(inside) > 1


def main(clones: list[str]) -> None:
    for clone, (repo, (file, names)) in zip(clones, SOURCES.items(), strict=True):
        commit = git(clone, "rev-parse", "HEAD").strip()
        for name in names:
            path = file.format(name)
            resource = yaml.safe_load(git(clone, "show", f"HEAD:{path}"))["spec"]
            version = next(one for one in reversed(resource["versions"]) if one["storage"])
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"].pop("status", None)
            schema["properties"]["metadata"] = {"type": "object"}
            found = {
                "$comment": f"Trimmed by scripts/crd_schemas.py from https://github.com/{repo}/blob/{commit}/{path}, "
                "licence Apache-2.0",
                "apiVersion": f"{resource['group']}/{version['name']}",
                "kind": resource["names"]["kind"],
                "schema": trimmed(schema),
            }
            OUT.mkdir(exist_ok=True)
            (OUT / f"{name}.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


def git(clone: str, *args: str) -> str:
    return subprocess.run(["git", "-C", clone, *args], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
