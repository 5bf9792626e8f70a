"""What `hkdbench doctor` looks at: versions, devices, Ray, the store, disk, limits. It changes nothing that stays."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness import registry
from harness.errors import UserError, first_line
from harness.execution import ray_cluster
from harness.paths import cache_folder
from harness.store import Store, manifest

LEAST_PYTHON = ">=3.11"
OTHER_STORE = "choose another with --store or HKDBENCH_STORE"
DEMO_MEMORY = 4 * 2**30
LITTLE_DISK, FEW_DISK = 2**29, 5 * 2**30
"""Free bytes below which runs fail soon, and below which checkpoints of large models don't fit."""


@dataclass(frozen=True)
class Diagnosis:
    """What one check found, and what to change if it isn't ok."""

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str
    mend: str = ""


def examine(store: str | None, start_ray: bool) -> Iterator[Diagnosis]:
    """All findings, the quick ones first. `start_ray`: start a cluster of this machine, and end it."""
    yield _python()
    for text in asked_packages():
        yield _package(Requirement(text))
    checks: tuple[Callable[[], Diagnosis], ...] = (
        _plugins,
        _memory,
        lambda: _store(store),
        lambda: _disk("disk of the store", _nearest(_place(store))),
        _cache,
        _temporary,
        _open_files,
        _output,
        _chromium,
        _devices,
        lambda: _ray(start_ray),
    )
    for check in checks:
        yield check()


# ----------------------------------------------------------------------------------------- versions


def asked_packages() -> list[str]:
    """The packages that hkdbench needs, as its pyproject.toml asks for them; those of the extras are left out."""
    file = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if file.is_file():
        found: list[str] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
        return found
    try:
        return [text for text in requires("hkdbench") or () if "extra ==" not in text]
    except PackageNotFoundError:  # its files alone, without an installation
        return []


def _python() -> Diagnosis:
    found = platform.python_version()
    if SpecifierSet(LEAST_PYTHON).contains(found):
        return Diagnosis("python", "ok", f"{found} ({sys.executable})")
    return Diagnosis("python", "problem", f"{found}, needs {LEAST_PYTHON}", "make the environment with a newer python3")


def _package(asked: Requirement) -> Diagnosis:
    mend = f"pip install {str(asked)!r}"
    try:
        found = version(asked.name)
    except PackageNotFoundError:
        return Diagnosis(asked.name, "problem", f"not installed, needs {asked.specifier}", mend)
    if asked.specifier.contains(found, prereleases=True):
        return Diagnosis(asked.name, "ok", f"{found} (needs {asked.specifier})")
    return Diagnosis(asked.name, "problem", f"{found}, needs {asked.specifier}", mend)


def _plugins() -> Diagnosis:
    try:
        methods, benchmarks = registry.methods(), registry.benchmarks()
        loaded = len(dict(registry.load_all(methods))) + len(dict(registry.load_all(benchmarks)))
    except UserError as error:
        return Diagnosis("methods and benchmarks", "problem", first_line(error), "uninstall one of the two")
    if broken := registry.problems():
        mend = "repair or uninstall that package"
        return Diagnosis("methods and benchmarks", "problem", "; ".join(map(str, broken)), mend)
    return Diagnosis("methods and benchmarks", "ok", f"{loaded} of {len(methods) + len(benchmarks)} load")


# ------------------------------------------------------------------------------------------ machine


def _memory() -> Diagnosis:
    memory = psutil.virtual_memory()
    found = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
    found += f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB of memory free"
    if memory.available < DEMO_MEMORY:
        return Diagnosis("machine", "warning", found, "free memory: the demo needs 4 GiB, else run it with --workers 0")
    return Diagnosis("machine", "ok", found)


def _devices() -> Diagnosis:
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except Exception as error:  # a broken installation may raise anything
        return Diagnosis("devices", "problem", f"torch can't be imported: {first_line(error)}", "install torch again")
    if count:
        names = (torch.cuda.get_device_properties(number) for number in range(count))
        return Diagnosis(
            "devices", "ok", ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in names)
        )
    if shutil.which("nvidia-smi"):
        mend = "install torch's build for CUDA (pytorch.org/get-started), and check `nvidia-smi`"
        return Diagnosis("devices", "warning", "nvidia-smi is here, but torch sees no GPU", mend)
    return Diagnosis("devices", "ok", "no GPU: runs use the CPU")


def _ray(start: bool) -> Diagnosis:
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray_cluster.check_address(address)
        if not start:
            found = f"a head answers at {address}; --ray joins it" if address else "not tried; --ray starts a cluster"
            return Diagnosis("ray", "ok", found)
        ray_cluster.connect()  # until this process ends
        return Diagnosis("ray", "ok", f"joined {address}" if address else "a cluster of this machine starts")
    except Exception as error:  # Ray raises errors of many kinds
        mend = "see docs/cluster.md, or run with --workers 0, without Ray"
        return Diagnosis("ray", "problem", first_line(error), mend)


# ----------------------------------------------------------------------------------- store and files


def _store(root: str | None) -> Diagnosis:
    try:
        store = Store(root)
        missing = store.backend.missing()
        if missing and "://" not in store.url:
            above = _nearest(Path(store.url))
            if _can_write(above):
                return Diagnosis("store", "ok", f"{store.url} isn't there yet: the first run makes it")
            return Diagnosis("store", "problem", f"no folder can be made in {above}", OTHER_STORE)
        runs = len(store.ids())
        if store.packed:
            return Diagnosis("store", "ok", f"{store.url}: {runs} runs, packed: only read")
        store.backend.check_writable()
        names = manifest.manifests(store.backend)
    except (UserError, OSError) as error:
        return Diagnosis("store", "problem", first_line(error), OTHER_STORE)
    if names and manifest.newest(store.backend) is None:
        found = f"{store.url}: {runs} runs, with a catalogue of another version"
        return Diagnosis("store", "warning", found, f"hkdbench store compact --store {store.url}")
    return Diagnosis("store", "ok", f"{store.url}: {runs} runs, can be written")


def _place(root: str | None) -> Path:
    """Where the store's files lie on this machine; for a bucket its cache."""
    try:
        return Path(Store(root).backend.scratch)
    except (UserError, OSError):
        return Path.cwd()


def _nearest(path: Path) -> Path:
    """The path or, if it isn't there, the first folder above it that is."""
    return next(one for one in (path, *path.parents) if one.exists())


def _disk(name: str, folder: Path) -> Diagnosis:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < LITTLE_DISK:
        return Diagnosis(name, "problem", found, "free some, or choose another place with --store")
    if free < FEW_DISK:
        return Diagnosis(
            name, "warning", found, "free some: a checkpoint of a model with 2 billion weights takes 24 GiB"
        )
    return Diagnosis(name, "ok", found)


def _cache() -> Diagnosis:
    try:
        folder = cache_folder()
    except UserError as error:
        return Diagnosis("cache", "problem", first_line(error), "set HKDBENCH_CACHE to a folder")
    return _writable("cache", folder, "HKDBENCH_CACHE")


def _temporary() -> Diagnosis:
    return _writable("temporary files", Path(tempfile.gettempdir()), "TMPDIR")


def _writable(name: str, folder: Path, variable: str) -> Diagnosis:
    above = _nearest(folder)
    if _can_write(above):
        return Diagnosis(name, "ok", f"{folder} can be written")
    return Diagnosis(name, "problem", f"{folder} can't be written", f"set {variable} to a folder of yours")


def _can_write(folder: Path) -> bool:
    """Whether a file can be made in the folder; it is gone at once. For root, permissions alone don't say."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _open_files() -> Diagnosis:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return Diagnosis("open files", "ok", "no limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"at most {'any number' if hard == resource.RLIM_INFINITY else hard} (now {soft})"
    if hard != resource.RLIM_INFINITY and hard < ray_cluster.OPEN_FILES:
        mend = f"raise `ulimit -Hn` to {ray_cluster.OPEN_FILES}, or run with --workers 0, without Ray"
        return Diagnosis("open files", "problem", found, mend)
    return Diagnosis("open files", "ok", found)


def _output() -> Diagnosis:
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    if "utf" in encoding.lower():
        return Diagnosis("output", "ok", encoding)
    found = f"{encoding}: signs that it lacks are replaced in tables"
    return Diagnosis("output", "warning", found, "set PYTHONIOENCODING=utf-8, or LC_ALL=C.UTF-8")


def _chromium() -> Diagnosis:
    path = os.environ.get("HKDBENCH_CHROMIUM") or shutil.which("chromium")
    if path and Path(path).exists():
        return Diagnosis("chromium", "ok", f"{path} (for the dashboard's tests)")
    return Diagnosis("chromium", "ok", "not found; only the dashboard's tests need it: apt-get install chromium")


def summary(findings: list[Diagnosis]) -> str:
    """How many are of which state, in one line."""
    counts = {state: sum(one.state == state for one in findings) for state in ("ok", "warning", "problem")}
    return ", ".join(f"{count} {state}{'s' if count != 1 and state != 'ok' else ''}" for state, count in counts.items())
