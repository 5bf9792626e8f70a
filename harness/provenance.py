"""Where a run's numbers come from: versions, git state, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness

PACKAGES = ("torch", "transformers", "ray", "numpy", "pillow", "safetensors", "tokenizers")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def static() -> dict[str, Any]:
    """The fields of `record.Provenance` that don't change while the process lives."""
    commit, dirty = _git()
    return {
        "package": f"hkdbench {harness.__version__}",
        "git_commit": commit,
        "git_dirty": dirty,
        "scoring": scoring_digest(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count() or 0,
        },
    }


@lru_cache(maxsize=1)
def scoring_digest() -> str:
    """sha256 over the code that makes figures and intervals of predictions."""
    digest = hashlib.sha256()
    for name in ("stats/bootstrap.py", "stats/calibration.py", "stats/metrics.py", "stats/inference.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that this code runs from; None where it is installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        ask = ["git", "-C", str(root)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            [*ask, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(status.strip())


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def reset_peak_memory() -> None:
    """Start counting this process's peak memory anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int | None:
    """This process's peak resident memory in bytes since `reset_peak_memory`, or None."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
