"""The peak memory of a command with all its descendants, Ray's processes included.

    python benches/peak_memory.py --out benches/results/demo_memory.json -- hkdbench demo --store DIR

Sums the proportional set size (each shared page counted once) of the process tree every half second; the result says
which processes held the peak. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from harness import provenance

INTERVAL_S = 0.5


def tree_bytes(root: psutil.Process) -> dict[str, int]:
    """Proportional set size in bytes of the process and its descendants, summed by their names."""
    sizes: dict[str, int] = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            size, words = process.memory_full_info().pss, process.cmdline()
        except psutil.Error:
            continue
        # Ray's workers title themselves "ray::Actor.method"; others go by their program.
        title = " ".join(words)
        name = title.split()[0].split(".")[0] if title.startswith("ray::") else process_name(words)
        sizes[name] = sizes.get(name, 0) + size
    return sizes


def process_name(words: list[str]) -> str:
    """`gcs_server`, `hkdbench`, `agent.py`: the program, or the script or module that Python runs."""
    arguments = words[1:] if words and Path(words[0]).name.startswith("python") else words
    return Path(next((word for word in arguments if not word.startswith("-")), "?")).name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    started, clock = provenance.now(), time.monotonic()
    peak: dict[str, int] = {}
    process = subprocess.Popen(arguments.command)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, tree_bytes(root), key=lambda sizes: sum(sizes.values()))
        except psutil.NoSuchProcess:
            break
        time.sleep(INTERVAL_S)
    result = {
        "command": " ".join(arguments.command),
        "exit_code": process.wait(),
        "peak_gib": round(sum(peak.values()) / 2**30, 3),
        "peak_mib_by_process": {
            name: round(size / 2**20) for name, size in sorted(peak.items(), key=lambda item: -item[1])
        },
        "seconds": round(time.monotonic() - clock, 1),
        "started": started,
        **{k: v for k, v in provenance.static().items() if k in ("versions", "machine", "git_commit")},
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
